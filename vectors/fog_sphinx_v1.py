#!/usr/bin/env python3
"""A second implementation of fog-sphinx version 1, written from behaviours/sphinx/README.md alone.

It checks vectors/fog-sphinx-v1.json: it builds every packet and reply block from the same entropy, takes them through
every hop, opens the replies, and refuses what must be refused for the stated reason. Standard library only, so it is
slow and not in constant time: for tests, never for secrets.

    python3 vectors/fog_sphinx_v1.py [vectors/fog-sphinx-v1.json]
"""

import hashlib
import hmac
import json
import pathlib
import struct
import sys

# ------------------------------------------------------------------ primitives

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def mac(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def expand(prk, info, length):
    out, block, counter = b"", b"", 1
    while len(out) < length:
        block = mac(prk, block + info + bytes([counter]))
        out += block
        counter += 1
    return out[:length]


def clamp(key):
    key = bytearray(key)
    key[0] &= 248
    key[31] = key[31] & 127 | 64
    return int.from_bytes(key, "little")


def multiply(scalar, u):
    """RFC 7748's ladder, for any scalar below 2^255 and any 32 bytes."""
    x1 = (int.from_bytes(u, "little") & (2**255 - 1)) % P
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for t in range(254, -1, -1):
        bit = scalar >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b = x2 + z2, x2 - z2
        aa, bb = a * a % P, b * b % P
        e = (aa - bb) % P
        da, cb = (x3 - z3) * a % P, (x3 + z3) * b % P
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


BASE = (9).to_bytes(32, "little")


def x25519(key, u):
    return multiply(clamp(key), u)


def stream(key, length):
    """ChaCha20, RFC 8439, zero nonce."""
    out = b""
    for counter in range((length + 63) // 64):
        start = list(struct.unpack("<4I", b"expand 32-byte k") + struct.unpack("<8I", key)) + [counter, 0, 0, 0]
        w = start[:]

        def quarter(a, b, c, d):
            for x, y, z, rotation in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                w[x] = (w[x] + w[y]) & 0xFFFFFFFF
                v = w[z] ^ w[x]
                w[z] = (v << rotation | v >> (32 - rotation)) & 0xFFFFFFFF

        for _ in range(10):
            for i in range(4):
                quarter(i, 4 + i, 8 + i, 12 + i)
            for i in range(4):
                quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
        out += struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(w, start)))
    return out[:length]


def aes_product(a, b):
    result = 0
    while b:
        if b & 1:
            result ^= a
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return result


def aes_sbox():
    box = [0x63] * 256
    p = q = 1
    while True:
        p = aes_product(p, 3)
        q ^= q << 1
        q ^= q << 2
        q = (q ^ q << 4) & 0xFF
        q ^= 0x09 if q & 0x80 else 0
        box[p] = q ^ 0x63
        for shift in range(1, 5):
            box[p] ^= (q << shift | q >> (8 - shift)) & 0xFF
        if p == 1:
            return box


SBOX = aes_sbox()
INVERSE = [SBOX.index(i) for i in range(256)]
TIMES = {factor: [aes_product(i, factor) for i in range(256)] for factor in (1, 2, 3, 9, 11, 13, 14)}


def aes_round_keys(key):
    words = [list(key[i : i + 4]) for i in range(0, 32, 4)]
    constant = 1
    for i in range(8, 60):
        word = words[-1]
        if i % 8 == 0:
            word = [SBOX[x] for x in word[1:] + word[:1]]
            word[0] ^= constant
            constant = aes_product(constant, 2)
        elif i % 8 == 4:
            word = [SBOX[x] for x in word]
        words.append([a ^ b for a, b in zip(words[i - 8], word)])
    return [sum(words[i : i + 4], []) for i in range(0, 60, 4)]


def aes_mix(state, row):
    out = []
    for column in (state[c : c + 4] for c in range(0, 16, 4)):
        for i in range(4):
            out.append(0)
            for j in range(4):
                out[-1] ^= TIMES[row[j]][column[(i + j) % 4]]
    return out


def aes_encrypt(keys, block):
    state = xor(block, keys[0])
    for round_ in range(1, 15):
        state = [SBOX[state[(i + 4 * (i % 4)) % 16]] for i in range(16)]
        if round_ < 14:
            state = aes_mix(state, (2, 3, 1, 1))
        state = xor(state, keys[round_])
    return state


def aes_decrypt(keys, block):
    state = xor(block, keys[14])
    for round_ in range(13, -1, -1):
        state = xor([INVERSE[state[(i - 4 * (i % 4)) % 16]] for i in range(16)], keys[round_])
        if round_:
            state = aes_mix(state, (14, 11, 13, 9))
    return bytes(state)


def polyval(key, message):
    """RFC 8452."""
    polynomial = 1 << 128 | 1 << 127 | 1 << 126 | 1 << 121 | 1
    key = int.from_bytes(key, "little")
    total = 0
    for at in range(0, len(message), 16):
        total ^= int.from_bytes(message[at : at + 16], "little")
        product = 0
        for i in range(128):
            if total >> i & 1:
                product ^= key << i
        for i in range(128):
            if product >> i & 1:
                product ^= polynomial << i
        total = product >> 128
    return total.to_bytes(16, "little")


def hctr2(key, message, aes):
    """HCTR2 with an empty tweak, for whole blocks; `aes` is the direction of the middle block."""
    keys = aes_round_keys(key)
    hash_key = aes_encrypt(keys, bytes(16))
    mask = aes_encrypt(keys, b"\x01" + bytes(15))
    first, rest = message[:16], message[16:]
    before = xor(first, polyval(hash_key, b"\x02" + bytes(15) + rest))
    after = aes(keys, before)
    seed = int.from_bytes(xor(xor(before, after), mask), "little")
    rest = b"".join(
        xor(rest[at : at + 16], aes_encrypt(keys, (seed ^ at // 16 + 1).to_bytes(16, "little")))
        for at in range(0, len(rest), 16)
    )
    return xor(after, polyval(hash_key, b"\x02" + bytes(15) + rest)) + rest


def seal(key, message):
    return hctr2(key, message, aes_encrypt)


def unseal(key, message):
    return hctr2(key, message, aes_decrypt)


# ------------------------------------------------------------------ the format


class Refused(Exception):
    pass


class Keys:
    def __init__(self, secret):
        prk = mac(b"fog-sphinx-v1", secret)
        check = expand(prk, b"check", 48)
        hop = expand(prk, b"hop", 128)
        self.replay_tag, self.mac = check[:16], check[16:]
        self.stream, self.payload, self.delay_seed, self.blinding = hop[:32], hop[32:64], hop[64:96], hop[96:]


COMMANDS = {1: "forward", 2: "deliver", 3: "slot", 4: "reply", 5: "slot-reply"}


def process(mix_secret, packet):
    """Returns shared secret, keys, routing bytes, payload, next packet (or None)."""
    if len(packet) != 2362:
        raise Refused("Malformed")
    if packet[0] != 1:
        raise Refused("UnknownVersion")
    alpha, gamma, beta, delta = packet[5:37], packet[37:53], packet[53:298], packet[298:]
    secret = x25519(mix_secret, alpha)
    if secret == bytes(32):
        raise Refused("Malformed")
    keys = Keys(secret)
    if mac(keys.mac, packet[:5] + alpha + beta)[:16] != gamma:
        raise Refused("BadMac")
    routing = xor(beta + bytes(49), stream(keys.stream, 294))
    if routing[0] not in COMMANDS:
        raise Refused("Malformed")
    delta = unseal(keys.payload, delta)
    if routing[0] in (2, 3) and delta[:16] != bytes(16):
        raise Refused("BadPayload")
    following = None
    if routing[0] == 1:
        following = packet[:5] + x25519(keys.blinding, alpha) + routing[33:49] + routing[49:294] + delta
    return secret, keys, routing, delta, following


def build_header(path, epoch, last_block, entropy):
    """`path` is (id, public key) per hop. Returns the header, the hops' keys, and the entropy that is left."""
    hops = len(path)
    pad_len = 49 * (5 - hops)
    pad, left = entropy[32 : 32 + pad_len], entropy[32 + pad_len :]
    scalar = clamp(entropy[:32])
    alphas, keys = [], []
    for _, public in path:
        scalar %= ORDER
        alphas.append(multiply(scalar, BASE))
        keys.append(Keys(multiply(scalar, public)))
        scalar *= clamp(keys[-1].blinding)
    filler = b""
    for i in range(1, hops):
        filler = xor(filler + bytes(49), stream(keys[i - 1].stream, 294)[294 - 49 * i :])
    prefix = b"\x01" + epoch.to_bytes(4, "big")
    beta = xor(last_block + pad, stream(keys[-1].stream, 294)) + filler
    gamma = mac(keys[-1].mac, prefix + alphas[-1] + beta)[:16]
    for i in range(hops - 2, -1, -1):
        block = b"\x01" + path[i + 1][0] + gamma
        beta = xor(block + beta[:196], stream(keys[i].stream, 294))
        gamma = mac(keys[i].mac, prefix + alphas[i] + beta)[:16]
    return prefix + alphas[0] + gamma + beta, keys, left


def open_reply(stored, payload):
    for i in range(stored[0], 0, -1):
        payload = seal(stored[1 + 32 * i : 33 + 32 * i], payload)
    payload = unseal(stored[1:33], payload)
    if payload[:16] != bytes(16):
        raise Refused("BadPayload")
    return payload[16:]


# ------------------------------------------------------------------ the checks

unhex = bytes.fromhex


def check_hop(state, packet):
    secret, keys, routing, delta, following = process(unhex(state["mix_secret"]), packet)
    assert packet == unhex(state["packet_in"])
    assert secret == unhex(state["shared_secret"])
    assert keys.replay_tag == unhex(state["replay_tag"])
    assert keys.delay_seed == unhex(state["delay_seed"])
    assert COMMANDS[routing[0]] == state["command"]
    assert state["id"] is None or routing[1:33] == unhex(state["id"])
    assert state["reference"] is None or routing[33:49] == unhex(state["reference"])
    return delta, following


def check_case(case):
    path = [(unhex(hop["id"]), unhex(hop["mix_public"])) for hop in case["path"]]
    assert all(x25519(unhex(hop["mix_secret"]), BASE) == public for hop, (_, public) in zip(case["path"], path))
    command = next(byte for byte, name in COMMANDS.items() if name == case["kind"])
    block = bytes([command]) + (unhex(case["slot"]) if case["slot"] else bytes(32)) + unhex(case["reference"])
    header, keys, left = build_header(path, case["epoch"], block, unhex(case["entropy"]))
    payload = bytes(16) + unhex(case["body"])
    if case["surb"]:
        assert path[0][0] + header + left == unhex(case["surb"])
        stored = bytes([len(path)]) + left + b"".join(hop.payload for hop in keys)
        assert stored.ljust(193, b"\0") == unhex(case["surb_keys"])
        payload = seal(left, payload)
    else:
        assert left == b""
        for hop in reversed(keys):
            payload = seal(hop.payload, payload)
    packet = header + payload
    for state in case["hops"]:
        payload, packet = check_hop(state, packet)
    assert packet is None and payload == unhex(case["payload_out"])
    body = open_reply(unhex(case["surb_keys"]), payload) if case["surb"] else payload[16:]
    assert body == unhex(case["body"])


def check_invalid(case):
    data = unhex(case["bytes"])
    try:
        if case["input"] == "packet":
            process(unhex(case["mix_secret"]), data)
        elif case["input"] == "reply":
            open_reply(unhex(case["surb_keys"]), data)
        elif len(data) != 362:
            raise Refused("Malformed")
        elif data[32] != 1:
            raise Refused("UnknownVersion")
    except Refused as refused:
        assert str(refused) == case["reason"], case["name"]
    else:
        raise AssertionError(f"{case['name']}: accepted")


def main():
    default = pathlib.Path(__file__).with_name("fog-sphinx-v1.json")
    vectors = json.loads(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else default).read_text())
    for case in vectors["cases"]:
        check_case(case)
        print("ok:", case["name"])
    _, following = check_hop(vectors["twist"], unhex(vectors["twist"]["packet_in"]))
    assert following == unhex(vectors["twist"]["packet_out"])
    print("ok: an alpha on the twist")
    for case in vectors["invalid"]:
        check_invalid(case)
        print("ok: refused:", case["name"])


if __name__ == "__main__":
    main()
