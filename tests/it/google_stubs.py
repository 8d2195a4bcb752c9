"""Google's published gRPC stubs, unmodified, against a server with the scripted engine: every feature of the live
conversation that their v1beta messages have. Prints one JSON object with what came of each.
"""

import json
import math
import queue
import struct
import sys

import google.api_core.exceptions
import grpc
from google.ai import generativelanguage_v1beta as api
from google.ai.generativelanguage_v1beta.services.generative_service.transports import GenerativeServiceGrpcTransport

(SERVER,) = sys.argv[1:]
CLIENT = api.GenerativeServiceClient(transport=GenerativeServiceGrpcTransport(channel=grpc.insecure_channel(SERVER)))
Message = api.BidiGenerateContentClientMessage


def tone(loud_ms, silent_ms=1000):
    loud = [round(16_000 * math.sin(math.tau * 440 * n / 16_000)) for n in range(16 * loud_ms)]
    samples = loud + [0] * (16 * silent_ms)
    data = struct.pack(f"<{len(samples)}h", *samples)
    return [data[at : at + 640] for at in range(0, len(data), 640)]


class Call:
    """One stream."""

    def __init__(self, modality="TEXT", **setup):
        self.requests = queue.Queue()
        setup = {"model": "models/default", "generation_config": {"response_modalities": [modality]}, **setup}
        self.send(setup=setup)
        self.stream = CLIENT.bidi_generate_content(requests=iter(self.requests.get, None))
        assert next(self.stream).setup_complete is not None

    def send(self, **message):
        self.requests.put(Message(**message))

    def say(self, words, turn_complete=True, role="user"):
        turn = {"role": role, "parts": [{"text": words}]}
        self.send(client_content={"turns": [turn], "turn_complete": turn_complete})

    def speak(self, pieces, field="audio"):
        for data in pieces:
            blob = {"mime_type": "audio/pcm;rate=16000", "data": data}
            self.send(realtime_input={field: [blob] if field == "media_chunks" else blob})

    def turn(self):
        seen = {"text": "", "thoughts": "", "heard": "", "said": "", "audio_bytes": 0, "marks": [], "calls": []}
        seen["tokens"] = seen["thoughts_tokens"] = 0
        for message in self.stream:
            if "tool_call" in message:
                seen["calls"] += [[call.id, call.name, dict(call.args)] for call in message.tool_call.function_calls]
                return seen
            if "tool_call_cancellation" in message:
                seen["marks"].append("cancellation")
            content = message.server_content
            for part in content.model_turn.parts:
                seen["thoughts" if part.thought else "text"] += part.text
                seen["audio_bytes"] += len(part.inline_data.data)
            seen["heard"] += content.input_transcription.text
            seen["said"] += content.output_transcription.text
            seen["tokens"] += message.usage_metadata.total_token_count
            seen["thoughts_tokens"] += message.usage_metadata.thoughts_token_count
            for mark in ("interrupted", "generation_complete", "turn_complete"):
                if getattr(content, mark):
                    seen["marks"].append(mark)
            if content.turn_complete:
                return seen
        raise RuntimeError(f"the stream ended in {seen}")

    def close(self):
        """Sends nothing more; whether the server ends the stream well."""
        self.requests.put(None)
        return all(False for _ in self.stream)


def text():
    call = Call(system_instruction={"parts": [{"text": "be brief"}]})
    call.say("not yet", turn_complete=False)
    call.say("noted", turn_complete=False, role="model")
    call.say("hello there")
    seen = call.turn()
    return {**seen, "closed": call.close()}


def realtime_text():
    call = Call()
    call.send(realtime_input={"text": "typed"})
    return call.turn()


TRANSCRIPTS = {"input_audio_transcription": {}, "output_audio_transcription": {}}


def audio(field):
    call = Call("AUDIO", **TRANSCRIPTS)
    call.speak(tone(800), field)
    return call.turn()


def audio_stream_end():
    call = Call("AUDIO", **TRANSCRIPTS)
    call.speak(tone(800, 0))
    call.send(realtime_input={"audio_stream_end": True})
    return call.turn()


def activity_marks():
    detection = {"automatic_activity_detection": {"disabled": True}}
    call = Call("AUDIO", realtime_input_config=detection, **TRANSCRIPTS)
    call.send(realtime_input={"activity_start": {}})
    call.speak(tone(600))
    call.send(realtime_input={"activity_end": {}})
    return call.turn()


def speech_config():
    config = {
        "response_modalities": ["AUDIO"],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "max_output_tokens": 200,
        "speech_config": {"voice_config": {"prebuilt_voice_config": {"voice_name": "Puck"}}, "language_code": "en-US"},
        "media_resolution": "MEDIA_RESOLUTION_LOW",
    }
    call = Call("AUDIO", generation_config=config, **TRANSCRIPTS)
    call.say("hello")
    return call.turn()


def thinking(**config):
    call = Call(generation_config={"response_modalities": ["TEXT"], "thinking_config": config})
    call.say("think one two three")
    seen = call.turn()
    return [seen["thoughts"], seen["thoughts_tokens"], seen["text"]]


def compression(**setup):
    """What is left of three turns."""
    call = Call(**setup)
    for words in ("first", "second", "third"):
        call.say(words)
        call.turn()
    call.say("recite")
    return call.turn()["text"]


def resumption():
    """What a conversation knows that goes on in another stream, and what a handle is told that was used."""
    call = Call(session_resumption={})
    call.say("first")
    call.turn()
    handle = next(m for m in call.stream if m.session_resumption_update.new_handle).session_resumption_update.new_handle
    call.requests.put(None)
    again = Call(session_resumption={"handle": handle})
    again.say("recite")
    try:
        Call(session_resumption={"handle": handle})
        refused = None
    except grpc.RpcError as error:
        refused = error.code().name
    except google.api_core.exceptions.GoogleAPICallError as error:
        refused = error.grpc_status_code.name
    return [again.turn()["text"], refused]


def transcripts(**wanted):
    call = Call("AUDIO", **wanted)
    call.speak(tone(800))
    seen = call.turn()
    return [seen["heard"].strip(), seen["said"].strip(), seen["audio_bytes"]]


def interruption(handling):
    detection = {"prefix_padding_ms": 20, "silence_duration_ms": 400}
    config = {"activity_handling": handling, "automatic_activity_detection": detection}
    call = Call("AUDIO", realtime_input_config=config, **TRANSCRIPTS)
    call.say("say 30 words")
    for message in call.stream:
        if message.server_content.model_turn.parts:
            break
    call.speak(tone(800))
    return [call.turn(), call.turn()]


def content_interrupts():
    call = Call("AUDIO", **TRANSCRIPTS)
    call.say("say 600 words")
    next(call.stream)
    call.say("enough")
    return [call.turn(), call.turn()]


TOOLS = [{"function_declarations": [{"name": "clock", "parameters": {"type": "OBJECT", "properties": {}}}]}]


def function_call():
    call = Call(tools=TOOLS)
    call.say("call clock")
    called = call.turn()
    answer = {"id": called["calls"][0][0], "name": "clock", "response": {"output": "noon"}}
    call.send(tool_response={"function_responses": [answer]})
    return {"called": called, "answered": call.turn()}


def function_call_is_cancelled():
    call = Call(tools=TOOLS)
    call.say("call clock")
    call.turn()
    call.say("never mind")
    return [call.turn(), call.turn()]


def refusals():
    seen = []
    for setup in [
        {"model": "models/nobody"},
        {"tools": [{"google_search": {}}]},
        {"generation_config": {"stop_sequences": ["x"]}},
        {"system_instruction": {"parts": [{"text": "x" * (1 << 20)}]}},
    ]:
        try:
            Call(**setup)
            seen.append(None)
        except Exception as error:
            seen.append(error.grpc_status_code.name)
    return seen


print(
    json.dumps(
        {
            "text": text(),
            "realtime_text": realtime_text(),
            "audio": audio("audio"),
            "media_chunks": audio("media_chunks"),
            "audio_stream_end": audio_stream_end(),
            "activity_marks": activity_marks(),
            "speech_config": speech_config(),
            "thinking": [
                thinking(thinking_budget=2, include_thoughts=True),
                thinking(thinking_budget=2),
                thinking(thinking_budget=0, include_thoughts=True),
            ],
            "compression": [
                compression(),
                compression(context_window_compression={"trigger_tokens": 15, "sliding_window": {"target_tokens": 7}}),
            ],
            "resumption": resumption(),
            "transcripts": [
                transcripts(),
                transcripts(input_audio_transcription={}),
                transcripts(output_audio_transcription={}),
            ],
            "interrupts": interruption("START_OF_ACTIVITY_INTERRUPTS"),
            "waits": interruption("NO_INTERRUPTION"),
            "content_interrupts": content_interrupts(),
            "function_call": function_call(),
            "cancelled": function_call_is_cancelled(),
            "refusals": refusals(),
        }
    )
)
