use super::*;

fn worker(name: &str) -> WorkerId {
    WorkerId::new(name).unwrap()
}

fn online(key: &str, name: &str) -> Online {
    Online {
        key: Some(key.to_owned()),
        serve: Serve::All,
        within: ModelPatterns::default(),
        report: None,
        until: None,
        poll: None,
        link: Some(Link {
            worker: worker(name),
            doubt: Arc::default(),
            in_line: Arc::new(crate::routing::Routing::default().enter()),
        }),
    }
}

#[test]
fn those_of_a_name_are_found_while_they_sit_and_by_nobody_else() {
    let workers = Workers::default();
    let seats: [Seat; 3] = std::array::from_fn(|_| workers.seat());
    let whose = [("k", "a"), ("other", "a"), ("k", "b")];
    for (seat, (key, name)) in seats.iter().zip(whose) {
        workers.sit(seat.clone(), online(key, name));
    }
    let poll = Seat::Poll("k".to_owned(), worker("a"));
    let polling = Online {
        link: None,
        ..online("k", "a")
    };
    workers.sit(poll.clone(), polling);
    let sits = |key: &str, name: &str| {
        let who = (key.to_owned(), worker(name));
        workers.lock().seat_of(&who).is_some()
    };
    assert!(whose.iter().all(|(key, name)| sits(key, name)));
    assert!(!sits("other", "b"));

    workers.doubt_older(Some(&"k".to_owned()), &worker("a"));
    let in_doubt = |seat: &Seat| {
        let seats = workers.lock();
        let link = seats.online.get(seat).and_then(|(o, _)| o.link.clone());
        link.is_some_and(|link| link.doubt.is_raised())
    };
    assert_eq!(seats.each_ref().map(in_doubt), [true, false, false]);

    workers.leave(&seats[0], Timestamp(1));
    assert!(sits("k", "a"), "it polls still");
    workers.dismiss(&poll);
    assert!(!sits("k", "a") && sits("other", "a"));
    workers.leave(&seats[1], Timestamp(1));
    workers.leave(&seats[2], Timestamp(1));
    let seats = workers.lock();
    assert!(seats.named.is_empty() && seats.online.is_empty());
}
