use std::time::Duration;

use super::{Kind, Refusal, Via, testing::World};

const SECOND: Duration = Duration::from_secs(1);

fn topic(world: &World, n: usize, name: &str) -> Option<String> {
    world.chat(n).conversations().into_iter().find(|one| one.to == name).and_then(|one| one.topic)
}

#[test]
fn a_room_is_about_what_was_said_last_by_somebody_who_is_heard() {
    let mut world = World::new(92, 3);
    world.connect_all();
    let room = world.join_all("#dev");
    world.run(60 * SECOND);
    let set = |world: &mut World, n: usize, topic: &str| {
        let set = world.act(n, |chat, now| chat.send(room, Kind::TOPIC, topic.as_bytes(), Via::Auto, now));
        world.run(20 * SECOND);
        set
    };
    let all = |world: &World| [0, 1, 2].map(|n| topic(world, n, "#dev"));
    assert_eq!(all(&world), [None, None, None]);
    set(&mut world, 0, "release on Friday").unwrap();
    set(&mut world, 1, "release on Monday").unwrap();
    assert_eq!(all(&world), [(); 3].map(|()| Some("release on Monday".to_owned())));
    world.crash(2);
    world.reopen(2);
    assert_eq!(topic(&world, 2, "#dev").as_deref(), Some("release on Monday"));
    let author = world.chat(1).device().to_string();
    world.act(2, |chat, now| chat.set_blocked(&author, true, now).unwrap());
    assert_eq!(topic(&world, 2, "#dev").as_deref(), Some("release on Friday"));
    set(&mut world, 0, "").unwrap();
    assert_eq!(all(&world), [None, None, None]);
    for bad in ["two\nlines", "a\u{202e}b", &"x".repeat(257)] {
        assert_eq!(set(&mut world, 0, bad), Err(Refusal::BadTopic(256)), "{bad:?}");
    }
    // Another program may say more, and none of it is shown.
    set(&mut world, 0, "short").unwrap();
    world.act(1, |chat, now| {
        let long = chat.write(room, Kind::TOPIC, &[b'x'; 300], now).unwrap().id();
        chat.queue_publication(room, long, now);
    });
    world.run(20 * SECOND);
    assert_eq!(world.history(0, room).len(), world.history(1, room).len());
    assert_eq!(all(&world), [(); 3].map(|()| Some("short".to_owned())));
    let direct = world.befriend(0, 1);
    let refused = world.act(0, |chat, now| chat.send(direct, Kind::TOPIC, b"us", Via::Auto, now));
    assert_eq!(refused, Err(Refusal::WrongKind));
}
