//! Whether functions are called when they are needed, and only then: typed questions to the default model with three
//! functions declared, half of which need one of them. What is tuned is tuned on the first set of questions and judged by
//! the second, which has other functions.

use std::path::PathBuf;

use anyhow::{Context, bail};
use causerie_model::cascade::{self, Options};
use causerie_model_api::{
    Cause, Engine, Event, Item, Modality, Request, Role, SessionConfig, SessionId, Thinking, ToolBehavior, ToolCall,
    ToolDeclaration, TurnId,
};
use clap::Args;
use serde_json::{Value, json};

use crate::machine;

/// Options of `cargo xtask tools`.
#[derive(Args)]
pub(crate) struct ToolsArgs {
    /// Folder of the models.
    #[arg(long, value_name = "DIR", env = "CAUSERIE_MODELS")]
    models: Option<PathBuf>,
    /// A system instruction, instead of the engine's own.
    #[arg(long, default_value = "")]
    instruction: String,
    /// How much likelier than any word a call must be; what suits the model if there is none.
    #[arg(long)]
    margin: Option<f32>,
    /// Only this set of questions: tuning or judging.
    #[arg(long)]
    set: Option<String>,
    /// Show every answer.
    #[arg(long)]
    verbose: bool,
}

/// A question, the function that it needs, and a word of its arguments.
struct Question(&'static str, Option<(&'static str, &'static str)>);

/// Functions, and questions to a model that has them.
struct Set {
    name: &'static str,
    functions: fn() -> Vec<ToolDeclaration>,
    questions: &'static [Question],
}

const SETS: [Set; 2] = [
    Set { name: "tuning", functions: weather_timer_message, questions: &TUNING },
    Set { name: "judging", functions: light_music_train, questions: &JUDGING },
];

const TUNING: [Question; 44] = [
    Question("How warm is it in Paris right now?", Some(("get_weather", "Paris"))),
    Question("What is the weather like in Tokyo?", Some(("get_weather", "Tokyo"))),
    Question("Do I need an umbrella in London today?", Some(("get_weather", "London"))),
    Question("Is it snowing in Oslo?", Some(("get_weather", "Oslo"))),
    Question("Tell me the current temperature in Rome.", Some(("get_weather", "Rome"))),
    Question("I am flying to Madrid. How is the weather there?", Some(("get_weather", "Madrid"))),
    Question("Will it rain in Berlin this afternoon?", Some(("get_weather", "Berlin"))),
    Question("How windy is it in Chicago?", Some(("get_weather", "Chicago"))),
    Question("Set a timer for ten minutes.", Some(("set_timer", "10"))),
    Question("Please remind me in 5 minutes to check the oven.", Some(("set_timer", "5"))),
    Question("Start a 25 minute timer.", Some(("set_timer", "25"))),
    Question("Can you set a timer for half an hour?", Some(("set_timer", "30"))),
    Question("Wake me up in 90 minutes.", Some(("set_timer", "90"))),
    Question("Set the egg timer to four minutes, please.", Some(("set_timer", "4"))),
    Question("I need a 15 minute countdown.", Some(("set_timer", "15"))),
    Question("Send Anna a message that I will be late.", Some(("send_message", "Anna"))),
    Question("Text Ben: dinner is ready.", Some(("send_message", "Ben"))),
    Question("Tell Carla by message that the train is delayed.", Some(("send_message", "Carla"))),
    Question("Write to David that I love the flowers.", Some(("send_message", "David"))),
    Question("Let Emma know that the meeting starts at three.", Some(("send_message", "Emma"))),
    Question("Message Frank: happy birthday!", Some(("send_message", "Frank"))),
    Question("Please send my mother a message saying good night.", Some(("send_message", "ight"))),
    Question("What is the capital of France?", None),
    Question("Hello, how are you?", None),
    Question("Tell me a joke.", None),
    Question("Who wrote Romeo and Juliet?", None),
    Question("Thank you, that was helpful.", None),
    Question("What is seven times eight?", None),
    Question("How many days has a leap year?", None),
    Question("Why is the sky blue?", None),
    Question("What is the largest planet?", None),
    Question("Say something nice to me.", None),
    Question("What is your name?", None),
    Question("Which river flows through London?", None),
    Question("What is the difference between weather and climate?", None),
    Question("How do you spell umbrella?", None),
    Question("How long does it take to boil an egg?", None),
    Question("What do people eat in Tokyo?", None),
    Question("Translate good morning into German.", None),
    Question("How many minutes are there in two hours?", None),
    Question("Give me three names for a cat.", None),
    Question("What is a good present for my mother?", None),
    Question("In which country is Oslo?", None),
    Question("Goodbye!", None),
];

const JUDGING: [Question; 48] = [
    Question("Turn on the light in the kitchen.", Some(("switch_light", "kitchen"))),
    Question("Please switch off the bedroom lamp.", Some(("switch_light", "bedroom"))),
    Question("It is too dark in the living room.", Some(("switch_light", "living room"))),
    Question("Lights off in the garage, please.", Some(("switch_light", "garage"))),
    Question("Can you make it bright in the bathroom?", Some(("switch_light", "bathroom"))),
    Question("I forgot to turn off the light in the cellar.", Some(("switch_light", "cellar"))),
    Question("Switch the hallway light on.", Some(("switch_light", "hallway"))),
    Question("Could you turn the office lights off for me?", Some(("switch_light", "office"))),
    Question("Play something by Mozart.", Some(("play_music", "Mozart"))),
    Question("I would like to hear the Beatles.", Some(("play_music", "Beatles"))),
    Question("Put on some jazz.", Some(("play_music", "azz"))),
    Question("Play Yesterday for me, please.", Some(("play_music", "Yesterday"))),
    Question("Can you play relaxing piano music?", Some(("play_music", "iano"))),
    Question("Let us listen to Bob Dylan.", Some(("play_music", "Dylan"))),
    Question("Start my workout playlist.", Some(("play_music", "orkout"))),
    Question("Music please, anything by Queen.", Some(("play_music", "Queen"))),
    Question("When does the next train from Bonn to Cologne leave?", Some(("find_train", "Bonn"))),
    Question("I need a train from Zurich to Geneva.", Some(("find_train", "Geneva"))),
    Question("Is there a train from Leeds to York this evening?", Some(("find_train", "York"))),
    Question("How do I get from Milan to Turin by train?", Some(("find_train", "Turin"))),
    Question("Find me a train to Prague, I start in Vienna.", Some(("find_train", "Prague"))),
    Question("Look up trains between Porto and Lisbon.", Some(("find_train", "Lisbon"))),
    Question("Which train can I take from Kyoto to Osaka?", Some(("find_train", "Osaka"))),
    Question("What is the earliest train from Boston to New York?", Some(("find_train", "Boston"))),
    Question("Good morning!", None),
    Question("Who painted the Mona Lisa?", None),
    Question("What is the opposite of hot?", None),
    Question("How many legs does a spider have?", None),
    Question("Tell me something about yourself.", None),
    Question("Who was Mozart?", None),
    Question("What instrument did Bob Dylan play?", None),
    Question("Who invented the light bulb?", None),
    Question("How fast does light travel?", None),
    Question("Is Cologne in Germany?", None),
    Question("What language is spoken in Lisbon?", None),
    Question("Why do trains run on rails?", None),
    Question("What is twelve plus thirty?", None),
    Question("What colour is a ripe banana?", None),
    Question("Thanks a lot!", None),
    Question("I am a little sad today.", None),
    Question("Which animal is the tallest?", None),
    Question("What is a good name for a dog?", None),
    Question("How do I boil rice?", None),
    Question("What does the word garage mean?", None),
    Question("Name three colours.", None),
    Question("When did the Second World War end?", None),
    Question("Which months have thirty days?", None),
    Question("See you tomorrow!", None),
];

fn function(name: &str, description: &str, properties: Value) -> ToolDeclaration {
    let required: Vec<&String> = properties.as_object().into_iter().flatten().map(|(name, _)| name).collect();
    let parameters = json!({"type": "object", "properties": properties, "required": required}).to_string();
    let (name, description) = (name.to_owned(), description.to_owned());
    ToolDeclaration { name, description, parameters, behavior: ToolBehavior::Blocking }
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn weather_timer_message() -> Vec<ToolDeclaration> {
    let minutes = json!({"type": "integer", "minimum": 1, "description": "how long"});
    let message = json!({"to": text("who gets it"), "text": text("what it says")});
    vec![
        function("get_weather", "Current weather in a city", json!({"city": text("name of the city")})),
        function("set_timer", "Starts a timer that rings when it is over", json!({ "minutes": minutes })),
        function("send_message", "Sends a text message to a person", message),
    ]
}

fn light_music_train() -> Vec<ToolDeclaration> {
    let light = json!({"room": text("which room"), "on": {"type": "boolean"}});
    let train = json!({"from": text("where the journey begins"), "to": text("where it ends")});
    vec![
        function("switch_light", "Turns the light of a room on or off", light),
        function("play_music", "Plays music", json!({"what": text("a song, an artist or a style")})),
        function("find_train", "Finds the next train between two cities", train),
    ]
}

/// What the model does first: a call, or words.
enum Did {
    Called(ToolCall),
    Said(String),
}

fn ask(
    engine: &mut dyn Engine,
    session: SessionId,
    instruction: &str,
    (tools, question): (Vec<ToolDeclaration>, &str),
) -> anyhow::Result<Did> {
    let config = Box::new(SessionConfig {
        modality: Modality::Text,
        thinking: Thinking { budget: Some(0), include_thoughts: false },
        system_instruction: instruction.to_owned(),
        max_output_tokens: Some(64),
        tools,
        ..SessionConfig::default()
    });
    let busy = |_| anyhow::anyhow!("the engine is busy");
    engine.submit(Request::Open { session, config, history: Vec::new() }).map_err(busy)?;
    engine.submit(Request::Append { session, items: vec![Item::text(Role::User, question)] }).map_err(busy)?;
    engine.submit(Request::Start { session, turn: TurnId(1), cause: Cause::History }).map_err(busy)?;
    let (mut text, mut call, mut over, mut failed) = (String::new(), None, false, None);
    while call.is_none() && !over && failed.is_none() {
        engine.step(&mut |_, event| match event {
            Event::Text { delta, .. } => text.push_str(&delta),
            Event::ToolCall { call: made, .. } => {
                call.get_or_insert(made);
            }
            Event::Done { .. } => over = true,
            Event::Failed { error, .. } => failed = Some(error),
            _ => {}
        });
    }
    engine.submit(Request::Close { session }).map_err(busy)?;
    match (call, failed) {
        (Some(call), _) => Ok(Did::Called(call)),
        (None, None) => Ok(Did::Said(text)),
        (None, Some(error)) => bail!("{question}: {error}"),
    }
}

/// Runs `cargo xtask tools`.
pub(crate) fn tools(args: &ToolsArgs) -> anyhow::Result<()> {
    let folder = causerie_gateway::models::Folder::resolve(args.models.as_deref()).path().to_owned();
    let mut engine = cascade::load(&Options { call_margin: args.margin, ..Options::new(folder) })
        .context("the models are needed")?;
    println!("\n{}", machine::line());
    let wanted = |set: &&Set| args.set.as_deref().is_none_or(|name| name == set.name);
    for (n, set) in SETS.iter().filter(wanted).enumerate() {
        let first = SessionId(n as u64 * 1_000 + 1);
        measure(engine.as_mut(), first, set, args)?;
    }
    Ok(())
}

fn measure(engine: &mut dyn Engine, first: SessionId, set: &Set, args: &ToolsArgs) -> anyhow::Result<()> {
    let Set { name, functions, questions } = set;
    let needed = questions.iter().filter(|Question(_, function)| function.is_some()).count();
    println!("\n{name}: {} typed questions, {needed} of which need one of three functions", questions.len());
    let (mut right, mut wrong, mut missed, mut needless, mut words) = (0, 0, 0, 0, 0);
    for (n, Question(question, function)) in (0..).zip(*questions) {
        let did = ask(engine, SessionId(first.0 + n), &args.instruction, (functions(), question))?;
        let verdict = match (&did, function) {
            (Did::Called(call), Some((name, word))) => match call.name == *name && call.arguments.contains(word) {
                true => (&mut right, "right call"),
                false => (&mut wrong, "wrong call"),
            },
            (Did::Called(_), None) => (&mut needless, "needless call"),
            (Did::Said(_), Some(_)) => (&mut missed, "missed"),
            (Did::Said(_), None) => (&mut words, "words"),
        };
        *verdict.0 += 1;
        if args.verbose {
            let shown = match &did {
                Did::Called(call) => format!("{}({})", call.name, call.arguments),
                Did::Said(text) => format!("{text:?}"),
            };
            println!("{:<14} {question} {shown}", verdict.1);
        }
    }
    println!("needed: {right} of {needed} called rightly, {wrong} wrongly, {missed} answered in words");
    println!("not needed: {needless} of {} called all the same", needless + words);
    Ok(())
}
