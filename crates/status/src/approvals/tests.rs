use proto::Timestamp;

use super::*;

const WITHIN: Duration = Duration::from_secs(120);

fn by(process: u32) -> Identity {
    Identity::Process(process, 7)
}

fn ask(
    approvals: &Approvals,
    process: u32,
    now: Instant,
) -> Result<PendingApproval, (ErrorCode, String)> {
    let who = Program {
        name: format!("p{process}"),
        ..Program::default()
    };
    approvals.ask(by(process), who, Command::StopTts, WITHIN, now)
}

fn code(refused: Result<PendingApproval, (ErrorCode, String)>) -> ErrorCode {
    refused.expect_err("it was asked").0
}

#[tokio::test]
async fn a_program_asks_once_at_a_time_and_few_wait() {
    let home = tempfile::tempdir().unwrap();
    let approvals = Approvals::open(home.path(), World::default());
    let now = Instant::now();
    let first = ask(&approvals, 1, now).unwrap();
    assert_eq!(code(ask(&approvals, 1, now)), ErrorCode::RateLimited);
    let others: Vec<_> = (2..=4).map(|n| ask(&approvals, n, now).unwrap()).collect();
    assert_eq!(code(ask(&approvals, 5, now)), ErrorCode::RateLimited);
    assert_eq!(approvals.pairs().borrow().waiting.len(), WAITING_MAX);
    drop(first);
    drop(others);
    assert!(approvals.pairs().borrow().waiting.is_empty());
}

#[tokio::test]
async fn a_thousand_questions_reach_the_owner_as_eight() {
    let home = tempfile::tempdir().unwrap();
    let approvals = Approvals::open(home.path(), World::default());
    let now = Instant::now();
    let put = |now| {
        (0..1_000)
            .filter(|n| ask(&approvals, *n, now).is_ok())
            .count()
    };
    assert_eq!(put(now), ASKED_MAX);
    assert_eq!(put(now + WINDOW / 2), 0);
    assert_eq!(put(now + WINDOW), ASKED_MAX);
}

#[tokio::test]
async fn whoever_connects_again_and_again_makes_the_system_look_once_a_second() {
    let home = tempfile::tempdir().unwrap();
    let approvals = Approvals::open(home.path(), World::default());
    let now = Instant::now();
    let looks = |now| {
        let tries = (0..1_000).filter(|_| approvals.check_look(now).is_ok());
        tries.count()
    };
    assert_eq!(looks(now), LOOKS_BURST as usize);
    let later = now + Duration::from_secs(2);
    assert_eq!(looks(later), 2);
    let refused = approvals.check_look(later).unwrap_err();
    assert_eq!(refused.0, ErrorCode::RateLimited);
}

#[tokio::test]
async fn a_refused_program_is_not_asked_about_again_for_a_while() {
    let home = tempfile::tempdir().unwrap();
    let approvals = Approvals::open(home.path(), World::default());
    let now = Instant::now();
    let mut pending = ask(&approvals, 1, now).unwrap();
    approvals.deny(&pending.id.to_string()).unwrap();
    assert!(matches!(pending.verdict.try_recv(), Ok(Verdict::No)));
    assert_eq!(code(ask(&approvals, 1, now)), ErrorCode::ApprovalDenied);
    let later = Instant::now() + WINDOW;
    let other = ask(&approvals, 2, now).unwrap();
    drop(other);
    ask(&approvals, 1, later).unwrap();
    assert_eq!(approvals.deny("99").unwrap_err().0, ErrorCode::NothingToDo);
}

#[tokio::test]
async fn leave_for_good_is_a_token_that_outlives_a_restart_until_it_is_revoked() {
    let home = tempfile::tempdir().unwrap();
    let approvals = Approvals::open(home.path(), World::default());
    let mut pending = ask(&approvals, 1, Instant::now()).unwrap();
    approvals.approve("1", Consent::Always).await.unwrap();
    let Ok(Verdict::Always(id, token)) = pending.verdict.try_recv() else {
        panic!("no token")
    };
    assert!(!format!("{approvals:?}").contains(token.expose()));

    let again = Approvals::open(home.path(), World::default());
    let shown = again.pairs().borrow().allowed.clone();
    assert_eq!((shown.len(), &*shown[0].who.name), (1, "p1"));
    assert_eq!(again.find(token.expose().as_bytes()), Some(id));
    assert_eq!(again.find(&[b'0'; 64]), None);
    assert!(again.holds(id));
    again.revoke(&shown[0].id).await.unwrap();
    assert!(!again.holds(id) && again.find(token.expose().as_bytes()).is_none());
    let refused = again.revoke(&shown[0].id).await.unwrap_err();
    assert_eq!(refused.0, ErrorCode::NothingToDo);
    let last = Approvals::open(home.path(), World::default());
    assert!(last.pairs().borrow().allowed.is_empty());
}

#[tokio::test]
async fn a_revoked_leave_does_not_come_back_with_the_next() {
    let home = tempfile::tempdir().unwrap();
    let approvals = Approvals::open(home.path(), World::default());
    let allow = async |process: u32| {
        let mut pending = ask(&approvals, process, Instant::now()).unwrap();
        let asked = pending.id.to_string();
        approvals.approve(&asked, Consent::Always).await.unwrap();
        let Ok(Verdict::Always(id, _)) = pending.verdict.try_recv() else {
            panic!("no token")
        };
        id
    };
    let (kept, revoked) = (allow(1).await, allow(2).await);
    approvals.revoke(&revoked.to_string()).await.unwrap();
    let next = allow(3).await;
    // An open connection remembers the number of its grant.
    assert!(!approvals.holds(revoked) && approvals.holds(kept) && approvals.holds(next));
}

#[tokio::test]
async fn once_leaves_nothing_behind_and_who_left_gets_nothing() {
    let home = tempfile::tempdir().unwrap();
    let approvals = Approvals::open(home.path(), World::default());
    let mut pending = ask(&approvals, 1, Instant::now()).unwrap();
    approvals.approve("1", Consent::Once).await.unwrap();
    assert!(matches!(pending.verdict.try_recv(), Ok(Verdict::Once)));
    drop(ask(&approvals, 2, Instant::now()).unwrap());
    let gone = approvals.approve("2", Consent::Always).await.unwrap_err();
    assert_eq!(gone.0, ErrorCode::NothingToDo);
    assert!(approvals.pairs().borrow().allowed.is_empty());
    assert!(!home.path().join("approved.json").exists());
}

#[cfg(unix)]
#[tokio::test]
async fn a_list_that_others_could_have_written_allows_nobody() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().unwrap();
    let approvals = Approvals::open(home.path(), World::default());
    let _ticket = ask(&approvals, 1, Instant::now()).unwrap();
    approvals.approve("1", Consent::Always).await.unwrap();
    let file = home.path().join("approved.json");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    let list = std::fs::read(&file).unwrap();
    let again = Approvals::open(home.path(), World::default());
    assert!(again.pairs().borrow().allowed.is_empty());
    assert_eq!(std::fs::read(&file).unwrap(), list, "it may be mended");
    let mended = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&file, mended).unwrap();
    let last = Approvals::open(home.path(), World::default());
    assert_eq!(last.pairs().borrow().allowed.len(), 1);
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_put_aside_when_another_is_written_and_never_over_an_older() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("approved.json");
    let world = |now| World {
        clock: Box::new(move || Timestamp(now)),
        ..World::default()
    };
    for (now, damaged) in [(1, "one"), (2, "two")] {
        std::fs::write(&file, damaged).unwrap();
        let approvals = Approvals::open(home.path(), world(now));
        for n in 1..=2 {
            let _ticket = ask(&approvals, n, Instant::now()).unwrap();
            approvals
                .approve(&n.to_string(), Consent::Always)
                .await
                .unwrap();
        }
        let again = Approvals::open(home.path(), world(now));
        assert_eq!(again.pairs().borrow().allowed.len(), 2);
    }
    for (now, damaged) in [(1, "one"), (2, "two")] {
        let aside = home.path().join(format!("approved.json.damaged-{now}"));
        assert_eq!(std::fs::read_to_string(aside).unwrap(), damaged);
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 3);
}

#[tokio::test]
async fn what_cannot_be_put_aside_is_not_written_over() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("approved.json");
    std::fs::create_dir(&file).unwrap();
    let world = World {
        clock: Box::new(|| Timestamp(7)),
        ..World::default()
    };
    let aside = home.path().join("approved.json.damaged-7");
    std::fs::write(&aside, "in the way").unwrap();
    let approvals = Approvals::open(home.path(), world);
    let _ticket = ask(&approvals, 1, Instant::now()).unwrap();
    let refused = approvals.approve("1", Consent::Always).await.unwrap_err();
    assert_eq!(refused.0, ErrorCode::StoreUnavailable);
    assert!(approvals.pairs().borrow().allowed.is_empty() && file.is_dir());
}
