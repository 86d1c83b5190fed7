//! Peers that speak as they like.

use fog_circuits::{
    RelayKey,
    core::{
        cell::{CELL_LEN, Cell, Command, HopId},
        crypto::handshake::Waiting,
    },
};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{PeerId, Stream, Swarm, identity::Keypair, swarm::SwarmEvent};

use super::{net::*, *};

/// A peer that speaks as it likes, and its link to `node`.
async fn link(node: &Node) -> Stream {
    let mut swarm = hostile_swarm(Keypair::generate_ed25519());
    let address = libp2p::Multiaddr::try_from(node.hop.addresses[0].clone()).unwrap();
    swarm.dial(address.with(libp2p::multiaddr::Protocol::P2p(node.peer))).unwrap();
    let peer = node.peer;
    let (give, take) = futures::channel::oneshot::channel();
    let mut give = Some(give);
    tokio::spawn(async move {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => swarm.behaviour_mut().open(peer),
                SwarmEvent::Behaviour(opened) => {
                    // Only the first one is waited for.
                    if let Some(give) = give.take() {
                        drop(give.send(opened.stream));
                    }
                }
                _ => {}
            }
        }
    });
    timeout(PATIENCE, take).await.unwrap().unwrap()
}

fn hostile_swarm(keys: Keypair) -> Swarm<raw::Raw> {
    swarm_of(keys, raw::Raw::new(NETWORK.protocol("circuits", 1)))
}

async fn works(net: &Net) {
    let stream = net.nodes[0].circuits.connect(host(), Isolation::default(), request(b'D', MIB));
    assert_eq!(timeout(PATIENCE, download(stream)).await.unwrap().unwrap(), MIB);
}

/// Reads until the link ends; the cells that came.
async fn read_all(link: &mut Stream) -> Vec<Cell> {
    let mut bytes = Vec::new();
    let _reset = timeout(PATIENCE, link.read_to_end(&mut bytes)).await.unwrap();
    bytes.as_chunks::<CELL_LEN>().0.iter().map(|bytes| Cell::decode(bytes).unwrap()).collect()
}

async fn read_cell(link: &mut Stream) -> Cell {
    let mut bytes = [0; CELL_LEN];
    timeout(PATIENCE, link.read_exact(&mut bytes)).await.unwrap().unwrap();
    Cell::decode(&bytes).unwrap()
}

fn create(id: u32, to: &RelayKey) -> Cell {
    let waiting = Waiting::new(*to, &[1], &[id as u8; 96]).unwrap();
    let body = [&(waiting.request().len() as u16).to_be_bytes(), waiting.request()].concat();
    Cell::with_body(HopId(id), Command::Create, &body)
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_the_link_is_blamed_and_disturbs_nobody() {
    let mut net = Net::new(4).await;
    net.serve(3);
    works(&net).await;
    let mut hostile = link(&net.nodes[1]).await;
    hostile.write_all(&[0xff; CELL_LEN]).await.unwrap();
    hostile.flush().await.unwrap();
    assert_eq!(read_all(&mut hostile).await, []);
    let blame = |event| if let Event::Blame { peer, reason } = event { Some((peer, reason)) } else { None };
    let (_, reason): (PeerId, _) = net.nodes[1].until(blame).await;
    assert_eq!(reason, fog_base::DropReason::Malformed);
    works(&net).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_for_unknown_circuits_and_bad_handshakes_get_nothing_but_an_end() {
    let mut net = Net::new(4).await;
    net.serve(3);
    let mut hostile = link(&net.nodes[1]).await;
    for id in 1..100 {
        hostile.write_all(&Cell::new(HopId(id), Command::Relay).to_bytes()).await.unwrap();
    }
    // A handshake that is not one is answered by an end that says nothing.
    let bad = Cell::with_body(HopId(7), Command::Create, &[1, 0, 5, 5]);
    hostile.write_all(&bad.to_bytes()).await.unwrap();
    hostile.flush().await.unwrap();
    assert_eq!(read_cell(&mut hostile).await, Cell::new(HopId(7), Command::Destroy));
    // A right one is answered; a cell that nobody recognises ends it in the same way.
    hostile.write_all(&create(8, &net.nodes[1].hop.relay).to_bytes()).await.unwrap();
    hostile.flush().await.unwrap();
    assert_eq!(read_cell(&mut hostile).await.command(), Command::Created);
    hostile.write_all(&Cell::new(HopId(8), Command::Relay).to_bytes()).await.unwrap();
    hostile.flush().await.unwrap();
    assert_eq!(read_cell(&mut hostile).await, Cell::new(HopId(8), Command::Destroy));
    assert_eq!(net.nodes[1].circuits.drops().get(fog_base::DropReason::NoRoute), 99);
    works(&net).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_handshakes_is_held_to_its_rate_while_others_are_served() {
    let mut net = Net::new(4).await;
    net.serve(3);
    let (mut read, mut write) = link(&net.nodes[1]).await.split();
    let key = net.nodes[1].hop.relay;
    let flood = tokio::spawn(async move {
        for id in 1..=2_000 {
            if write.write_all(&create(id, &key).to_bytes()).await.is_err() {
                return;
            }
        }
        let _gone = write.flush().await;
    });
    let answers = tokio::spawn(async move {
        let mut created = 0;
        for _ in 0..2_000 {
            let mut bytes = [0; CELL_LEN];
            if read.read_exact(&mut bytes).await.is_err() {
                break;
            }
            created += usize::from(Cell::decode(&bytes).unwrap().command() == Command::Created);
        }
        created
    });
    works(&net).await;
    timeout(PATIENCE, flood).await.unwrap().unwrap();
    let created = timeout(PATIENCE, answers).await.unwrap().unwrap();
    let limited = net.nodes[1].circuits.drops().get(fog_base::DropReason::RateLimited);
    assert!(limited > 0 && created as u64 + limited <= 2_000, "{created} {limited}");
    works(&net).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_takes_everything_and_answers_nothing_is_left_for_another() {
    let mut net = Net::new(5).await;
    // It stands first among the relays, so it is the guard.
    let keys = Keypair::generate_ed25519();
    let peer = keys.public().to_peer_id();
    let mut swarm = hostile_swarm(keys);
    let addresses = vec![address_of(&mut swarm).await];
    let relay = RelayKey { id: id_of(&peer), key: net.nodes[0].hop.relay.key };
    net.relays.lock().unwrap().insert(0, fog_circuits::Hop { relay, addresses });
    tokio::spawn(async move {
        let mut links = Vec::new();
        loop {
            if let SwarmEvent::Behaviour(opened) = swarm.select_next_some().await {
                links.push(opened.stream);
            }
        }
    });
    net.serve(4);
    works(&net).await;
    assert!(net.nodes[0].circuits.list().await.iter().all(|info| !info.hops.contains(&relay.id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_reads_nothing_of_its_link_holds_up_no_other() {
    let mut net = Net::new(4).await;
    net.serve(3);
    let mut hostile = link(&net.nodes[1]).await;
    for id in 1..=100 {
        hostile.write_all(&create(id, &net.nodes[1].hop.relay).to_bytes()).await.unwrap();
    }
    hostile.flush().await.unwrap();
    works(&net).await;
}
