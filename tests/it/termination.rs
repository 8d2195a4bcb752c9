//! The program itself, told to end by the system while its clients are being answered, and the program that goes on.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use causerie_model_api::Modality;
use causerie_proto::v1::{self, server_message::MessageType as FromServer};
use causerie_tests::real::{available, folder, skip};
use causerie_tests::service::{Call, PATIENCE, connect, resumable, setup};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tonic::Code;

/// `target/release/causerie`, which is built before the tests are.
fn binary() -> Option<PathBuf> {
    let tests = std::env::current_exe().expect("the program of the tests");
    let path = tests.parent().and_then(Path::parent).expect("it is in target/release/deps").join("causerie");
    path.exists().then_some(path)
}

/// `causerie serve` as a process of its own.
struct Program {
    child: Child,
    grpc: SocketAddr,
}

impl Program {
    async fn start(binary: &Path, config: &Path) -> Self {
        let mut command = Command::new(binary);
        command.arg("serve").arg("--config").arg(config).arg("--models").arg(folder());
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("it can be started");
        let mut line = String::new();
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        tokio::time::timeout(PATIENCE, lines.read_line(&mut line)).await.expect("it starts").expect("it says so");
        let grpc = line.split_whitespace().find_map(|word| word.strip_prefix("grpc="));
        let grpc = grpc.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("{line:?} has no address"));
        Self { child, grpc }
    }

    fn terminate(&self) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)).expect("it runs");
        kill_process(pid, Signal::TERM).expect("it is ours");
    }

    /// How it ends by itself.
    async fn ended(mut self) -> std::process::ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").expect("it was started")
    }
}

/// Reads until something of the reply has come.
async fn answered(call: &mut Call) {
    while !matches!(
        call.next().await.expect("the reply").and_then(|message| message.message_type),
        Some(FromServer::ServerContent(_))
    ) {}
}

#[tokio::test]
async fn who_is_being_answered_when_the_program_is_terminated_goes_on_with_the_next() {
    if !available() {
        return;
    }
    let Some(binary) = binary() else { return skip("target/release/causerie is not built") };
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("causerie.toml");
    let database = folder.path().join("conversations.db");
    // What takes long on a busy machine must not be cut off.
    let text = format!(
        "listen = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\nmax_lag_ms = 60000\ndrain_seconds = 100\n\
         [resumption]\nfile = {database:?}\n"
    );
    std::fs::write(&config, text).expect("the file can be written");

    let program = Program::start(&binary, &config).await;
    let channel = connect(program.grpc).await;
    let (mut spoken, _) = Call::begin(&channel, resumable(setup(Modality::Audio), None)).await;
    let (mut written, _) = Call::begin(&channel, resumable(setup(Modality::Text), None)).await;
    let (mut idle, _) = Call::begin(&channel, resumable(setup(Modality::Text), None)).await;
    idle.say("My name is Robert.").await;
    idle.turn().await;
    spoken.say("Count from one to twelve.").await;
    answered(&mut spoken).await;
    written.say("My brother is called Martin. Tell me a story about him.").await;
    answered(&mut written).await;
    program.terminate();
    let mut handles = Vec::new();
    for (call, live) in [(&mut spoken, true), (&mut written, true), (&mut idle, false)] {
        let (end, rest) = call.end().await;
        assert_eq!(end.expect_err("the program ends").code(), Code::Unavailable);
        assert!(rest.marks.contains(&"go_away"), "{rest:?}");
        assert_eq!(rest.complete, live, "{rest:?}");
        if live {
            assert_eq!(rest.reason, Some(v1::TurnEndReason::Stop), "it was not cut off: {rest:?}");
        }
        let last = rest.resumption.last().expect("a handle");
        assert!(last.resumable, "{rest:?}");
        handles.push(last.new_handle.clone());
    }
    let status = program.ended().await;
    assert!(status.success(), "{status}");

    let program = Program::start(&binary, &config).await;
    let channel = connect(program.grpc).await;
    for (handle, question, fact) in
        [(&handles[1], "What is the name of my brother?", "Martin"), (&handles[2], "What is my name?", "Robert")]
    {
        let (mut call, _) = Call::begin(&channel, resumable(v1::Setup::default(), Some(handle))).await;
        call.say(question).await;
        let turn = call.turn().await;
        assert!(turn.text.contains(fact), "{question} {turn:?}");
    }
    // The reply that was being spoken is part of the prompt, to its end.
    let (mut spoken, _) = Call::begin(&channel, resumable(setup(Modality::Text), Some(&handles[0]))).await;
    spoken.say("What was the last number that you said?").await;
    let turn = spoken.turn().await;
    assert!(turn.text.to_lowercase().contains("twelve") || turn.text.contains("12"), "{turn:?}");
    program.terminate();
    assert!(program.ended().await.success());
}
