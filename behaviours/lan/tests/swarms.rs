//! Beacons over real sockets: swarms on loopback, each test on a port of its own. Linux
//! multicasts IPv4 alone on loopback; whole nodes show IPv6 in `tests/it/lan.rs`.
#![cfg(feature = "libp2p")]

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use ed25519_dalek::SigningKey;
use fog_base::NetworkId;
use fog_lan::{Behaviour, Config, Event, Reject, wire};
use futures::{StreamExt, future::select_all};
use libp2p::{Multiaddr, PeerId, Swarm, identity, swarm::SwarmEvent};
use libp2p_swarm_test::SwarmExt;

const PATIENCE: Duration = Duration::from_secs(20);
const NETWORK: NetworkId = NetworkId([3; 32]);

fn swarm(network: NetworkId, port: u16, listen: &str, n: u8) -> Swarm<Behaviour> {
    let mut swarm = Swarm::new_ephemeral_tokio(|keypair: identity::Keypair| {
        let secret = keypair.try_into_ed25519().unwrap().secret();
        let identity = SigningKey::from_bytes(secret.as_ref().try_into().unwrap());
        Behaviour::new(Config { network, port }, Arc::new(identity), [n; 32])
    });
    swarm.listen_on(listen.parse().unwrap()).unwrap();
    swarm
}

/// Drives the swarms until one tells something of its neighbours.
async fn next(swarms: &mut [Swarm<Behaviour>]) -> (usize, Event) {
    loop {
        let (event, which, _) = select_all(swarms.iter_mut().map(|swarm| Box::pin(swarm.next()))).await;
        if let Some(SwarmEvent::Behaviour(event)) = event {
            return (which, event);
        }
    }
}

async fn find_each_other(swarms: &mut [Swarm<Behaviour>]) -> Vec<(PeerId, Vec<Multiaddr>)> {
    let ids: Vec<_> = swarms.iter().map(|swarm| *swarm.local_peer_id()).collect();
    let mut found = vec![None; 2];
    while found.iter().any(Option::is_none) {
        let (which, event) = tokio::time::timeout(PATIENCE, next(swarms)).await.expect("they find each other");
        if let Event::Found { peer, addresses } = event {
            assert_eq!(peer, ids[1 - which]);
            found[which] = Some((peer, addresses));
        }
    }
    found.into_iter().flatten().collect()
}

#[tokio::test]
async fn two_nodes_on_one_host_find_each_other_and_connect() {
    const PORT: u16 = 17_180;
    let listen = "/ip4/127.0.0.1/tcp/0";
    let mut swarms = [swarm(NETWORK, PORT, listen, 1), swarm(NETWORK, PORT, listen, 2)];
    let found = find_each_other(&mut swarms).await;
    let (peer, addresses) = &found[0];
    let listening: Vec<_> = swarms[1].listeners().cloned().collect();
    assert_eq!(addresses, &listening);
    // By its id alone: the behaviour knows where it is.
    swarms[0].dial(*peer).unwrap();
    let connected = async {
        while !swarms[0].is_connected(peer) {
            select_all(swarms.iter_mut().map(|swarm| Box::pin(swarm.next()))).await;
        }
    };
    tokio::time::timeout(PATIENCE, connected).await.expect("connected");
}

#[tokio::test]
async fn garbage_and_another_network_are_counted_and_do_nothing() {
    const PORT: u16 = 17_182;
    let listen = "/ip4/127.0.0.1/tcp/0";
    let mut swarms = [swarm(NETWORK, PORT, listen, 1), swarm(NETWORK, PORT, listen, 2)];
    let mut other = swarm(NetworkId([9; 32]), PORT, listen, 3);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flood = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let socket = socket2::Socket::from(socket);
            socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
            let socket = UdpSocket::from(socket);
            for size in (0..1_500).cycle() {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                // A full buffer loses some of it.
                let _lost = socket.send_to(&vec![0xa5; size], (wire::GROUP_V4, PORT));
                if size % 50 == 0 {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    });
    let work = async {
        find_each_other(&mut swarms).await;
        let counts = |swarm: &Swarm<Behaviour>| *swarm.behaviour().lan().counts();
        loop {
            let counts = counts(&swarms[0]);
            if counts.refused(Reject::Size) > 100 && counts.refused(Reject::Foreign) > 0 {
                return;
            }
            let both = select_all(swarms.iter_mut().map(|swarm| Box::pin(swarm.next())));
            tokio::select! {
                _ = both => {}
                _ = other.next() => {}
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, work).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    flood.join().unwrap();
    outcome.expect("found and counted");
    assert_eq!(other.behaviour().lan().neighbours(), 0);
    assert_eq!(swarms[0].behaviour().lan().neighbours(), 1);
}
