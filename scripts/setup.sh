#!/bin/sh
# Makes a fresh Debian or Ubuntu ready to build Fog: a Rust toolchain is expected, a C++ compiler and libclang (for RocksDB and
# its bindings) are installed when apt and the rights are there. Elsewhere it says exactly what to install. Does nothing, and
# takes no time, when everything is present.
set -eu

RUST_NEEDED=1.95

say() { printf '%s\n' "$*" >&2; }

have() { command -v "$1" >/dev/null 2>&1; }

check_rust() {
    if ! have cargo; then
        say "error: cargo is not installed (or not on PATH)"
        say "hint: install Rust $RUST_NEEDED or newer: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
        exit 1
    fi
    version=$(cargo --version | cut -d' ' -f2)
    oldest=$(printf '%s\n%s\n' "$RUST_NEEDED" "$version" | sort -t. -k1,1n -k2,2n | head -n1)
    if [ "$oldest" != "$RUST_NEEDED" ]; then
        say "error: Rust $version is too old, $RUST_NEEDED or newer is needed"
        say "hint: rustup update stable"
        exit 1
    fi
}

have_cxx() { have c++ || have g++ || have clang++ || [ -n "${CXX:-}" ]; }

have_cc() { have cc || have gcc || have clang || [ -n "${CC:-}" ]; }

# The library alone is not enough: bindings are made with its own headers too.
have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    have_libclang_library && have_clang_headers
}

have_clang_headers() {
    have apt-get || return 0
    for file in /usr/lib/llvm*/lib/clang/*/include/stddef.h /usr/lib/clang/*/include/stddef.h; do
        [ -e "$file" ] && return 0
    done
    return 1
}

have_libclang_library() {
    if have ldconfig && ldconfig -p 2>/dev/null | grep -q 'libclang[-.0-9]*\.so'; then
        return 0
    fi
    for file in /usr/lib/llvm*/lib/libclang*.so* /usr/lib/*/libclang*.so* /usr/lib64/libclang*.so* \
        /usr/lib64/llvm*/lib/libclang*.so* /usr/local/lib/libclang*.so* /opt/homebrew/opt/llvm/lib/libclang.dylib \
        /usr/local/opt/llvm/lib/libclang.dylib /Library/Developer/CommandLineTools/usr/lib/libclang.dylib \
        /Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib/libclang.dylib; do
        case "$file" in *libclang-cpp*) continue ;; esac
        [ -e "$file" ] && return 0
    done
    return 1
}

# A C++ compiler without the standard library's headers is as good as none.
cxx_works() {
    printf '#include <vector>\nint main() { return std::vector<int>().size(); }\n' |
        "${CXX:-$(command -v c++ || command -v g++ || command -v clang++)}" -x c++ -fsyntax-only - >/dev/null 2>&1
}

missing_packages() {
    have_cc || printf '%s ' gcc
    { have_cxx && cxx_works; } || printf '%s ' g++
    have_libclang || printf '%s ' libclang-dev
}

advise() {
    say "error: to build RocksDB, Fog needs a C and a C++ compiler and libclang; missing: $missing"
    case "$(uname -s)" in
    Darwin) say "hint: xcode-select --install" ;;
    *)
        if have apt-get; then
            say "hint: sudo apt-get install $missing"
        elif have dnf; then
            say "hint: sudo dnf install gcc gcc-c++ clang-devel"
        elif have pacman; then
            say "hint: sudo pacman -S gcc clang"
        elif have zypper; then
            say "hint: sudo zypper install gcc gcc-c++ clang-devel"
        elif have apk; then
            say "hint: sudo apk add build-base clang-dev linux-headers"
        else
            say "hint: install gcc, g++ and the development files of libclang (LLVM)"
        fi
        ;;
    esac
    exit 1
}

check_rust
missing=$(missing_packages)
[ -n "$missing" ] || exit 0

if ! have apt-get; then
    advise
fi
if [ "$(id -u)" = 0 ]; then
    as_root=
elif have sudo && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    advise
fi

say "installing: $missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # word splitting is wanted: `as_root` and `missing` are lists
{
    $as_root apt-get update -qq >&2
    $as_root apt-get install -y -qq --no-install-recommends $missing >&2
} || advise
missing=$(missing_packages)
[ -z "$missing" ] || advise
