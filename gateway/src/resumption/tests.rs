//! Both stores through one table, and what becomes of a handle.

use super::*;

const NOW: u64 = 1_000;

fn limits() -> Limits {
    Limits { generations: 2, records: 5, bytes: 100, spent: 4 }
}

fn record(id: u8, conversation: u8, generation: u64, bytes: usize) -> Record {
    let (id, conversation) = ([id; 16], [conversation; 16]);
    Record { id, conversation, generation, caller: Some("key-1".into()), expires: NOW + 10, body: vec![7; bytes] }
}

/// Runs a test on every kind of store.
fn on_both(test: impl Fn(&dyn Store)) {
    test(&MemoryStore::new(limits()));
    let folder = tempfile::tempdir().unwrap();
    test(&SqliteStore::open(&folder.path().join("conversations"), limits()).unwrap());
}

fn ids(found: Found) -> Vec<u8> {
    match found {
        Found::Records(records) => records.iter().map(|record| record.id[0]).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn taking_a_moment_spends_its_conversation() {
    on_both(|store| {
        for record in [record(1, 1, 1, 9), record(2, 1, 2, 9), record(3, 2, 1, 9)] {
            store.put(record, NOW).unwrap();
        }
        assert_eq!(store.peek(&[1; 16], NOW).unwrap(), Found::Records(vec![record(1, 1, 1, 9), record(2, 1, 2, 9)]));
        assert_eq!(store.peek(&[9; 16], NOW).unwrap(), Found::Unknown);
        let Found::Records(taken) = store.take(&[1; 16], NOW).unwrap() else { panic!("it is there") };
        for id in [1, 2] {
            assert_eq!(store.peek(&[id; 16], NOW).unwrap(), Found::Used);
            assert_eq!(store.take(&[id; 16], NOW).unwrap(), Found::Used);
        }
        assert_eq!(ids(store.take(&[3; 16], NOW).unwrap()), [3]);
        store.put_back(taken).unwrap();
        assert_eq!(ids(store.take(&[2; 16], NOW).unwrap()), [1, 2]);
        assert_eq!(store.key().unwrap(), store.key().unwrap());
    });
}

#[test]
fn what_is_kept_has_bounds() {
    on_both(|store| {
        for generation in 1..=3 {
            store.put(record(generation, 1, generation.into(), 9), NOW).unwrap();
        }
        assert_eq!(ids(store.peek(&[3; 16], NOW).unwrap()), [2, 3], "so many moments of a conversation");
        assert_eq!(store.peek(&[1; 16], NOW).unwrap(), Found::Unknown);
        for id in 4..=7 {
            store.put(record(id, id, 1, 9), NOW).unwrap();
        }
        assert_eq!(store.peek(&[2; 16], NOW).unwrap(), Found::Unknown, "so many of all");
        store.put(record(8, 8, 1, 80), NOW).unwrap();
        assert_eq!(store.peek(&[5; 16], NOW).unwrap(), Found::Unknown, "so many bytes");
        assert_eq!(ids(store.peek(&[6; 16], NOW).unwrap()), [6]);
        assert_eq!(store.peek(&[6; 16], NOW + 10).unwrap(), Found::Unknown, "so long");
        store.put(Record { expires: NOW + 99, ..record(9, 9, 1, 90) }, NOW + 10).unwrap();
        assert_eq!(ids(store.peek(&[9; 16], NOW + 10).unwrap()), [9]);
        for id in 10..16 {
            store.put(record(id, id, 1, 1), NOW).unwrap();
            store.take(&[id; 16], NOW).unwrap();
        }
        assert_eq!(store.peek(&[10; 16], NOW).unwrap(), Found::Unknown, "so many that were used");
        assert_eq!(store.peek(&[12; 16], NOW).unwrap(), Found::Used);
    });
}

#[test]
fn a_file_outlives_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("conversations");
    let key = {
        let store = SqliteStore::open(&file, limits()).unwrap();
        store.put(record(1, 1, 1, 9), NOW).unwrap();
        store.key().unwrap()
    };
    let store = SqliteStore::open(&file, limits()).unwrap();
    assert_eq!(store.key().unwrap(), key);
    assert_eq!(ids(store.peek(&[1; 16], NOW).unwrap()), [1]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    std::fs::write(&file, "this is no database, whatever its name says").unwrap();
    assert!(SqliteStore::open(&file, limits()).is_err());
}

fn resumption() -> Arc<Resumption> {
    let store = Arc::new(MemoryStore::new(Limits::default()));
    Arc::new(Resumption::new(store, None, Duration::from_secs(60)).unwrap())
}

async fn refused(resumption: &Resumption, handle: &str, caller: Option<&str>, later: u64) -> (ProblemCode, String) {
    let now = unix(SystemTime::now()) + later;
    let problem = resumption.redeem_at(handle, caller, now).await.unwrap_err();
    assert_eq!(problem.field, FIELD);
    (problem.code, problem.message)
}

#[tokio::test]
async fn a_handle_counts_once_for_its_owner_in_its_time() {
    let resumption = resumption();
    let key = Some("key-1".to_owned());
    let mut hold = resumption.hold(None, key.clone());
    let first = hold.keep(b"one".to_vec()).await.unwrap().unwrap();
    let second = hold.keep(b"two".to_vec()).await.unwrap().unwrap();
    assert_eq!(hold.keep(vec![0; MAX_BODY_BYTES + 1]).await.unwrap(), None);
    drop(hold);
    let refused = async |handle: &str, caller, later| refused(&resumption, handle, caller, later).await;

    assert_eq!(refused("forged", key.as_deref(), 0).await.0, ProblemCode::InvalidArgument);
    let (code, message) = refused(&first, key.as_deref(), 100).await;
    assert_eq!(code, ProblemCode::FailedPrecondition);
    assert!(message.contains("expired 40 s ago") || message.contains("expired 39 s ago"), "{message}");
    assert_eq!(refused(&first, Some("key-2"), 0).await.0, ProblemCode::PermissionDenied);
    assert_eq!(refused(&first, None, 0).await.0, ProblemCode::PermissionDenied);
    let another = self::resumption();
    let foreign = another.hold(None, None).keep(b"x".to_vec()).await.unwrap().unwrap();
    assert_eq!(refused(&foreign, None, 0).await.0, ProblemCode::InvalidArgument);

    let redeemed = resumption.redeem(&first, key.as_deref()).await.unwrap();
    assert_eq!((&redeemed.body[..], redeemed.latest.as_deref()), (&b"one"[..], Some(&b"two"[..])));
    for handle in [&first, &second] {
        let (code, message) = refused(handle, key.as_deref(), 0).await;
        assert_eq!(code, ProblemCode::FailedPrecondition);
        assert!(message.contains("already"), "{message}");
    }
    resumption.put_back(redeemed).await;
    let redeemed = resumption.redeem(&second, key.as_deref()).await.unwrap();
    assert_eq!((&redeemed.body[..], redeemed.latest.as_deref()), (&b"two"[..], None));
    let mut hold = resumption.hold(Some(&redeemed), key);
    let third = hold.keep(b"three".to_vec()).await.unwrap().unwrap();
    drop(hold);
    assert_eq!(resumption.redeem(&third, Some("key-1")).await.unwrap().conversation, redeemed.conversation);
}

#[tokio::test]
async fn a_stream_that_still_holds_the_conversation_is_ended() {
    let resumption = resumption();
    let mut hold = resumption.hold(None, None);
    let handle = hold.keep(b"one".to_vec()).await.unwrap().unwrap();
    let mut ending = hold.ending();
    let old = tokio::spawn(async move {
        ending.changed().await.unwrap();
        // What it knew last is kept before the next stream goes on.
        hold.keep(b"two".to_vec()).await.unwrap();
    });
    let redeemed = resumption.redeem(&handle, None).await.unwrap();
    assert_eq!(redeemed.latest.as_deref(), Some(&b"two"[..]));
    old.await.unwrap();
    let next = resumption.hold(Some(&redeemed), None);
    assert!(lock(&resumption.open).contains_key(&redeemed.conversation));
    drop(next);
    assert!(lock(&resumption.open).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_end_is_not_waited_for_for_ever() {
    let resumption = resumption();
    let mut hold = resumption.hold(None, None);
    let handle = hold.keep(b"one".to_vec()).await.unwrap().unwrap();
    let problem = resumption.redeem(&handle, None).await.unwrap_err();
    assert_eq!((problem.code, problem.retryable), (ProblemCode::Unavailable, true));
}

#[test]
fn a_key_of_the_operator_signs_for_several_servers() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "too short\n").unwrap();
    let open = || Resumption::open(&ResumptionConfig { key_file: Some(file.clone()), ..ResumptionConfig::default() });
    assert!(open().err().unwrap().to_string().contains("9 bytes"), "the message has the number");
    std::fs::write(&file, format!("{}\n", "k".repeat(40))).unwrap();
    let handle = open().unwrap().signer.write(&[1; 16], 10);
    assert_eq!(open().unwrap().signer.read(&handle, 0), Ok([1; 16]));
}
