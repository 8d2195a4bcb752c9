//! The wire stays what published clients expect.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

use super::*;

const TABLE: &str = include_str!("wire.txt");

/// Every field and enum value of our file, written like a line of the table.
#[derive(Default)]
struct Contract {
    lines: BTreeSet<String>,
    messages: BTreeMap<String, Vec<u32>>,
}

fn contract() -> Contract {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("our own descriptors decode");
    let file: &FileDescriptorProto =
        set.file.iter().find(|f| f.package() == "causerie.live.v1").expect("the contract is in the set");
    let mut contract = Contract::default();
    for message in &file.message_type {
        add_message(&mut contract, "", message);
    }
    for kind in &file.enum_type {
        add_enum(&mut contract, "", kind);
    }
    contract
}

fn add_message(contract: &mut Contract, outer: &str, message: &DescriptorProto) {
    let name = format!("{outer}{}", message.name());
    let maps: BTreeMap<String, &DescriptorProto> = message
        .nested_type
        .iter()
        .filter(|n| n.options.as_ref().is_some_and(|o| o.map_entry()))
        .map(|n| (format!("{name}.{}", n.name()), n))
        .collect();
    let numbers = contract.messages.entry(name.clone()).or_default();
    for field in &message.field {
        numbers.push(field.number() as u32);
        let mut kind = type_of(field);
        let mut label = if field.label() == prost_types::field_descriptor_proto::Label::Repeated {
            "rep"
        } else if field.proto3_optional() {
            "opt"
        } else {
            "one"
        };
        if let Some(entry) = maps.get(&kind) {
            label = "map";
            kind = type_of(&entry.field[1]);
        }
        let oneof = match field.oneof_index {
            Some(i) if !field.proto3_optional() => format!(" {}", message.oneof_decl[i as usize].name()),
            _ => String::new(),
        };
        contract.lines.insert(format!("field {name} {} {} {label} {kind}{oneof}", field.number(), field.name()));
    }
    if message.field.iter().all(|f| f.number() >= 1000) {
        contract.lines.insert(format!("empty {name}"));
    }
    for nested in message.nested_type.iter().filter(|n| !n.options.as_ref().is_some_and(|o| o.map_entry())) {
        add_message(contract, &format!("{name}."), nested);
    }
    for kind in &message.enum_type {
        add_enum(contract, &format!("{name}."), kind);
    }
}

fn add_enum(contract: &mut Contract, outer: &str, kind: &EnumDescriptorProto) {
    for value in &kind.value {
        contract.lines.insert(format!("enum {outer}{} {} {}", kind.name(), value.number(), value.name()));
    }
}

fn type_of(field: &prost_types::FieldDescriptorProto) -> String {
    if let Some(name) = &field.type_name {
        return name.trim_start_matches('.').trim_start_matches("causerie.live.v1.").to_owned();
    }
    field.r#type().as_str_name().trim_start_matches("TYPE_").to_lowercase()
}

#[test]
fn every_public_field_has_its_number_and_type() {
    let ours = contract().lines;
    let missing: Vec<&str> =
        TABLE.lines().filter(|l| !l.starts_with('#') && !l.is_empty() && !ours.contains(*l)).collect();
    assert!(missing.is_empty(), "not in our contract:\n{}", missing.join("\n"));
}

#[test]
fn additions_to_public_messages_are_numbered_from_1000() {
    let public: BTreeSet<&str> = TABLE
        .lines()
        .filter(|l| l.starts_with("field ") || l.starts_with("empty "))
        .filter_map(|l| l.split(' ').nth(1))
        .collect();
    let known: BTreeSet<(&str, u32)> = TABLE
        .lines()
        .filter(|l| l.starts_with("field "))
        .filter_map(|l| {
            let mut words = l.split(' ').skip(1);
            Some((words.next()?, words.next()?.parse().ok()?))
        })
        .collect();
    for (message, numbers) in contract().messages {
        if !public.contains(message.as_str()) {
            continue;
        }
        for number in numbers {
            assert!(
                number >= 1000 || known.contains(&(message.as_str(), number)),
                "{message} has a number of its own below 1000: {number}"
            );
        }
    }
}

/// Bytes as a published client writes them, field by field, decoded by our types.
#[test]
fn a_foreign_setup_is_read() {
    let setup = v1::Setup {
        model: "models/default".into(),
        generation_config: Some(v1::GenerationConfig {
            response_modalities: vec![v1::generation_config::Modality::Audio as i32],
            temperature: Some(0.5),
            ..Default::default()
        }),
        input_audio_transcription: Some(v1::AudioTranscriptionConfig {}),
        ..Default::default()
    };
    let bytes = v1::ClientMessage { message_type: Some(v1::client_message::MessageType::Setup(Box::new(setup))) }
        .encode_to_vec();
    let mut expected = vec![0x0a, 30, 0x0a, 14];
    expected.extend(b"models/default");
    // generation_config = 2 { temperature = 5 (float 0.5), response_modalities = 20 (packed [AUDIO]) }
    expected.extend([0x12, 9, 0x2d, 0, 0, 0, 0x3f, 0xa2, 0x01, 1, 3]);
    // input_audio_transcription = 10 {}
    expected.extend([0x52, 0]);
    expected[1] = (expected.len() - 2) as u8;
    assert_eq!(bytes, expected);
}

#[test]
fn unknown_fields_are_skipped() {
    // Field 5 of Setup is not public; a length-delimited value of it must not stop the message from being read.
    let bytes = [0x0a, 5, 0x2a, 1, 0xff, 0x0a, 0];
    let message = v1::ClientMessage::decode(&bytes[..]).expect("unknown fields are not an error");
    assert!(matches!(message.message_type, Some(v1::client_message::MessageType::Setup(s)) if s.model.is_empty()));
}
