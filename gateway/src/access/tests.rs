use axum::http::HeaderValue;

use super::keys::{DEFAULT_PER_MINUTE, DEFAULT_STREAMS, Secret};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::*;

fn key(name: &str, secret: &str, streams: u32, per_minute: u32) -> Key {
    Key { name: name.into(), sha256: digest(secret), streams, per_minute }
}

/// Access on these keys, with a way to publish others.
fn access(keys: Vec<Key>) -> (Access, watch::Sender<Arc<Keyring>>) {
    let (publish, keys) = watch::channel(Arc::new(Keyring::default().with(keys)));
    (Access { keys: Some(keys) }, publish)
}

fn begin(access: &Access, presented: Option<&str>, now: Instant) -> Result<Pass, Problem> {
    let client = access.client(presented)?;
    let could = client.check(now);
    let pass = client.begin(now);
    assert_eq!(could.as_ref().err(), pass.as_ref().err(), "looking and doing say the same");
    pass
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("causerie-access-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[tokio::test]
async fn without_keys_everybody_may_talk() {
    let access = Access::open();
    assert!(!access.has_keys());
    let passes: Vec<_> = (0..100).map(|_| begin(&access, None, Instant::now()).unwrap()).collect();
    assert_eq!(passes.len(), 100);
}

#[tokio::test]
async fn a_key_is_needed_and_must_be_known() {
    let (access, _publish) = access(vec![key("ada", "one", 1, 10), key("bob", "two", 1, 10)]);
    for (presented, words) in [
        (None, "none came"),
        (Some(""), "not one of"),
        (Some("on"), "not one of"),
        (Some("ones"), "not one of"),
        (Some("three"), "not one of"),
    ] {
        let problem = access.client(presented).unwrap_err();
        assert_eq!((problem.code, problem.retryable), (ProblemCode::Unauthenticated, false), "{presented:?}");
        assert!(problem.message.contains(words), "{presented:?}: {}", problem.message);
    }
    access.client(Some("one")).unwrap();
    begin(&access, Some("two"), Instant::now()).unwrap();
}

#[tokio::test]
async fn conversations_at_once_are_counted_by_key() {
    let (access, publish) = access(vec![key("ada", "one", 2, 100), key("bob", "two", 1, 100)]);
    let now = Instant::now();
    let first = begin(&access, Some("one"), now).unwrap();
    let _second = begin(&access, Some("one"), now).unwrap();
    let problem = begin(&access, Some("one"), now).unwrap_err();
    assert_eq!((problem.code, problem.retryable), (ProblemCode::ResourceExhausted, true));
    assert!(problem.message.contains("the 2 conversations"), "{}", problem.message);
    let _other = begin(&access, Some("two"), now).expect("another key is not concerned");
    // A changed file keeps the count.
    let changed = publish.borrow().with(vec![key("renamed", "one", 2, 100)]);
    publish.send_replace(Arc::new(changed));
    begin(&access, Some("one"), now).unwrap_err();
    assert_eq!(access.client(Some("two")).unwrap_err().code, ProblemCode::Unauthenticated, "it was revoked");
    drop(first);
    begin(&access, Some("one"), now).unwrap();
}

#[tokio::test]
async fn new_conversations_are_counted_by_the_minute() {
    let (access, _publish) = access(vec![key("ada", "one", 10, 3)]);
    let mut now = Instant::now();
    for _ in 0..3 {
        drop(begin(&access, Some("one"), now).unwrap());
    }
    let problem = begin(&access, Some("one"), now).unwrap_err();
    assert_eq!(problem.code, ProblemCode::ResourceExhausted);
    let after = problem.retry_after.expect("it says when to try again");
    assert!((19.9..20.1).contains(&after.as_secs_f64()), "{after:?}");
    // A moment before is too early, and refusals cost nothing.
    begin(&access, Some("one"), now + after - Duration::from_millis(10)).unwrap_err();
    now += after;
    drop(begin(&access, Some("one"), now).unwrap());
    begin(&access, Some("one"), now).unwrap_err();
    // However long it rests, it never has more than a minute's worth.
    now += Duration::from_secs(3_600);
    let begun = (0..10).filter(|_| begin(&access, Some("one"), now).is_ok()).count();
    assert_eq!(begun, 3);
}

#[test]
fn keys_are_found_where_clients_put_them() {
    for (headers, query, expected) in [
        (vec![], None, None),
        (vec![("x-goog-api-key", "k")], None, Some("k")),
        (vec![("authorization", "Bearer k")], None, Some("k")),
        (vec![("authorization", "bearer  k ")], None, Some("k")),
        (vec![("authorization", "Token k")], None, Some("k")),
        (vec![("authorization", "Basic k")], None, None),
        (vec![("authorization", "k")], None, None),
        (vec![("authorization", "Bearer other"), ("x-goog-api-key", "k")], None, Some("k")),
        (vec![("x-goog-api-key", "\u{e4}")], None, None),
        (vec![], Some("key=k"), Some("k")),
        (vec![], Some("model=m&key=k&alt=x"), Some("k")),
        (vec![], Some("monkey=k&keys=k&key"), None),
        (vec![], Some(""), None),
        (vec![("x-goog-api-key", "k")], Some("key=other"), Some("k")),
        (vec![("authorization", "Basic x")], Some("key=k"), Some("k")),
    ] {
        let map: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap()))
            .collect();
        assert_eq!(presented_key(&map, query), expected, "{headers:?} {query:?}");
    }
}

#[test]
fn a_file_is_read_as_it_was_written() {
    let path = folder("round-trip").join("keys.toml");
    let keys = vec![key("ada", "one", 2, 100), key("b \"o\" b", "two", 1, 1)];
    keys::write(&path, keys.clone()).unwrap();
    assert_eq!(keys::read(&path).unwrap(), keys);
    keys::write(&path, Vec::new()).unwrap();
    assert_eq!(keys::read(&path).unwrap(), []);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("one"), "{text}");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

#[test]
fn limits_have_defaults_and_errors_have_places() {
    let hash = "ab".repeat(32);
    let path = folder("errors").join("keys.toml");
    std::fs::write(&path, format!("[[key]]\nname = \"a\"\nsha256 = \"{hash}\"")).unwrap();
    let read = keys::read(&path).unwrap();
    let expected =
        Key { name: "a".into(), sha256: [0xab; 32], streams: DEFAULT_STREAMS, per_minute: DEFAULT_PER_MINUTE };
    assert_eq!(read, [expected]);
    let entry = |name: &str, rest: &str| format!("[[key]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n{rest}\n");
    for (text, words) in [
        ("[[key]]\nname = \"a\"\nsha256 = \"abc\"".to_owned(), "64 hexadecimal digits, not 3"),
        (format!("[[key]]\nname = \"a\"\nsha256 = \"{}\"", "xy".repeat(32)), "64 hexadecimal digits"),
        ("[[key]]\nname = \"a\"".to_owned(), "sha256"),
        (entry("a", "limit = 3"), "limit"),
        (entry("a", "streams = 0"), "at least 1"),
        (entry("", ""), "no name"),
        (entry(&"n".repeat(65), ""), "no name"),
        (entry("a", "") + &entry("a", ""), "two keys called \"a\""),
    ] {
        std::fs::write(&path, &text).unwrap();
        let error = keys::read(&path).unwrap_err().to_string();
        assert!(error.contains("keys.toml") && error.contains(words), "{text}: {error}");
    }
    let error = keys::read(&path.with_file_name("absent")).unwrap_err().to_string();
    assert!(error.contains("absent"), "{error}");
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

#[test]
fn secrets_differ_and_do_not_show() {
    let (one, two) = (Secret::random().unwrap(), Secret::random().unwrap());
    assert_ne!(one.reveal(), two.reveal());
    assert_eq!(one.reveal().len(), keys::PREFIX.len() + 64);
    assert!(!format!("{one:?}").contains(&one.reveal()[keys::PREFIX.len()..]));
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_counts_without_a_restart() {
    let path = folder("reload").join("keys.toml");
    keys::write(&path, vec![key("ada", "one", 1, 10)]).unwrap();
    // The clock of a file system can be as coarse as this test is fast.
    let old = SystemTime::now() - Duration::from_secs(10);
    std::fs::File::open(&path).unwrap().set_modified(old).unwrap();
    let (mut access, _reloading) = Access::load(Some(&path)).unwrap();
    access.client(Some("one")).unwrap();
    access.client(Some("two")).unwrap_err();
    std::fs::write(&path, "no keys").unwrap();
    std::fs::File::open(&path).unwrap().set_modified(old + Duration::from_secs(1)).unwrap();
    tokio::time::sleep(crate::reload::PERIOD * 3).await;
    access.client(Some("one")).expect("a broken file changes nothing");
    keys::write(&path, vec![key("bob", "two", 1, 10)]).unwrap();
    access.keys.as_mut().unwrap().changed().await.unwrap();
    access.client(Some("two")).unwrap();
    access.client(Some("one")).unwrap_err();
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}
