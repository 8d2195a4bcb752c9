"""OpenAI's openai, unmodified, against a server's /v1/realtime with the scripted engine.

Every event is checked against the SDK's own types before it is used. Prints one JSON object with what came of each
conversation.
"""

import asyncio
import base64
import json
import math
import struct
import sys

from openai import AsyncOpenAI
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

(SERVER,) = sys.argv[1:]
EVENT = TypeAdapter(RealtimeServerEvent)
CLIENT = AsyncOpenAI(api_key="any", base_url=f"http://{SERVER}/v1")


def tone(rate, loud_ms=800, silent_ms=1000):
    loud = [round(16_000 * math.sin(math.tau * 440 * n / rate)) for n in range(rate * loud_ms // 1000)]
    return loud + [0] * (rate * silent_ms // 1000)


def pcm16(samples):
    return struct.pack(f"<{len(samples)}h", *samples)


def pcmu(samples):
    """G.711 mu-law, by its definition."""

    def byte(sample):
        sign, value = (0x80, -sample) if sample < 0 else (0, sample)
        value = min(value, 32_635) + 132
        exponent = value.bit_length() - 8
        return ~(sign | exponent << 4 | value >> exponent + 3 & 0xF) & 0xFF

    return bytes(map(byte, samples))


def pcma(samples):
    """G.711 A-law, by its definition."""

    def byte(sample):
        sign, value = (0, ~sample) if sample < 0 else (0x80, sample)
        value >>= 4
        if value > 15:
            exponent = value.bit_length() - 4
            value = exponent << 4 | value >> exponent - 1 & 0xF
        return (sign | value) ^ 0x55

    return bytes(map(byte, samples))


async def receive(connection):
    data = await connection.recv_bytes()
    EVENT.validate_json(data, strict=False)
    return connection.parse_event(data)


async def until(connection, kind):
    """Events up to one of the kind, which is the last."""
    seen = []
    while not seen or seen[-1].type != kind:
        seen.append(await receive(connection))
    return seen


async def response(connection):
    seen = {"kinds": [], "text": "", "said": "", "heard": None, "audio": b"", "calls": [], "errors": []}
    for event in await until(connection, "response.done"):
        if not seen["kinds"] or seen["kinds"][-1] != event.type:
            seen["kinds"].append(event.type)
        match event.type:
            case "response.output_text.delta":
                seen["text"] += event.delta
            case "response.output_audio_transcript.delta":
                seen["said"] += event.delta
            case "response.output_audio.delta":
                seen["audio"] += base64.b64decode(event.delta)
                seen["item"] = event.item_id
            case "conversation.item.input_audio_transcription.completed":
                seen["heard"] = event.transcript
            case "response.function_call_arguments.done":
                seen["calls"].append([event.call_id, event.name, json.loads(event.arguments)])
            case "error":
                seen["errors"].append(event.error.code)
    done = event.response
    seen["audio_bytes"] = len(seen.pop("audio"))
    return {**seen, "status": done.status, "tokens": done.usage and done.usage.output_tokens}


def typed(words):
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": words}]}


async def ask(connection, words):
    await connection.conversation.item.create(item=typed(words))
    await connection.response.create()


async def answer(connection, words):
    await ask(connection, words)
    return await response(connection)


async def append(connection, data, step):
    for at in range(0, len(data), step):
        await connection.input_audio_buffer.append(audio=base64.b64encode(data[at : at + step]).decode())


async def text_turn():
    async with CLIENT.realtime.connect(model="gpt-realtime") as connection:
        created = await receive(connection)
        await connection.session.update(
            session={"type": "realtime", "output_modalities": ["text"], "instructions": "be brief"}
        )
        updated = await receive(connection)
        await connection.conversation.item.create(item=typed("hello there"))
        await connection.response.create(response={"metadata": {"mine": "yes"}})
        return {
            "created": [created.type, created.session.model],
            "updated": [updated.type, updated.session.instructions],
            **await response(connection),
        }


async def spoken(kind, data, step, detection="server_vad"):
    async with CLIENT.realtime.connect(model="default") as connection:
        format = {"type": kind, "rate": 24_000} if kind == "audio/pcm" else {"type": kind}
        audio = {
            "input": {
                "format": format,
                "transcription": {"model": "whisper-1"},
                "turn_detection": {"type": detection},
            },
            "output": {"format": format, "voice": "marin"},
        }
        await connection.session.update(session={"type": "realtime", "audio": audio})
        await append(connection, data, step)
        return await response(connection)


async def committed():
    async with CLIENT.realtime.connect(model="default") as connection:
        audio = {"input": {"turn_detection": None, "transcription": {"model": "whisper-1"}}}
        await connection.session.update(session={"type": "realtime", "audio": audio})
        await append(connection, pcm16(tone(24_000, 400)), 4_800)
        await connection.input_audio_buffer.clear()
        await append(connection, pcm16(tone(24_000, 600)), 4_800)
        await connection.input_audio_buffer.commit()
        await until(connection, "input_audio_buffer.committed")
        await connection.response.create()
        return await response(connection)


async def function_call():
    async with CLIENT.realtime.connect(model="default") as connection:
        tool = {"type": "function", "name": "clock", "parameters": {"type": "object", "properties": {}}}
        await connection.session.update(
            session={"type": "realtime", "output_modalities": ["text"], "tools": [tool], "tool_choice": "auto"}
        )
        await connection.conversation.item.create(item=typed("call clock"))
        await connection.response.create()
        called = await response(connection)
        answer = {"type": "function_call_output", "call_id": called["calls"][0][0], "output": '{"time": "noon"}'}
        await connection.conversation.item.create(item=answer)
        await connection.response.create()
        return {"called": called, "answered": await response(connection)}


async def cancelled():
    async with CLIENT.realtime.connect(model="default") as connection:
        await ask(connection, "say 600 words")
        first = (await until(connection, "response.output_audio.delta"))[-1]
        await connection.response.cancel()
        await connection.conversation.item.truncate(item_id=first.item_id, content_index=0, audio_end_ms=100)
        return {"first": await response(connection), "second": await answer(connection, "again")}


async def interrupted():
    async with CLIENT.realtime.connect(model="default") as connection:
        await ask(connection, "say 600 words")
        said = ""
        while len(said.split()) < 5:
            event = (await until(connection, "response.output_audio_transcript.delta"))[-1]
            said += event.delta
        await append(connection, pcm16(tone(24_000)), 960)
        await until(connection, "input_audio_buffer.speech_started")
        await connection.conversation.item.truncate(item_id=event.item_id, content_index=0, audio_end_ms=250)
        seen = {"first": await response(connection), "second": await response(connection)}
        await connection.conversation.item.retrieve(item_id=event.item_id)
        item = (await until(connection, "conversation.item.retrieved"))[-1].item
        return {**seen, "item": [item.status, item.content[0].transcript]}


async def truncated():
    """A reply whose listener went away before its end, though all of it was sent."""
    async with CLIENT.realtime.connect(model="default") as connection:
        item = (await answer(connection, "hello there"))["item"]
        await connection.conversation.item.truncate(item_id=item, content_index=0, audio_end_ms=250)
        await until(connection, "conversation.item.truncated")
        return await answer(connection, "recite")


async def cleared():
    """What is being said, and what is being played."""
    async with CLIENT.realtime.connect(model="default") as connection:
        audio = {"input": {"transcription": {"model": "whisper-1"}}}
        await connection.session.update(session={"type": "realtime", "audio": audio})
        await append(connection, pcm16(tone(24_000, 800, 0)), 960)
        await until(connection, "input_audio_buffer.speech_started")
        await connection.input_audio_buffer.clear()
        await until(connection, "input_audio_buffer.cleared")
        await append(connection, pcm16(tone(24_000, 600)), 960)
        heard = (await response(connection))["heard"]
        await ask(connection, "say 600 words")
        await until(connection, "response.output_audio.delta")
        await connection.output_audio_buffer.clear()
        return [heard, (await response(connection))["status"]]


async def instructed():
    """Instructions that change between turns."""
    async with CLIENT.realtime.connect(model="default") as connection:
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        await answer(connection, "hello")
        await connection.session.update(session={"type": "realtime", "instructions": "be brief"})
        return (await answer(connection, "recite"))["text"]


async def edited():
    """Instructions of one response, and items that are deleted."""
    async with CLIENT.realtime.connect(model="default") as connection:
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        await connection.response.create(response={"instructions": "greet the user"})
        greeting = await response(connection)
        await connection.conversation.item.create(item={"id": "one", **typed("first")})
        await connection.conversation.item.create(item={"id": "two", **typed("second")})
        await connection.conversation.item.delete(item_id="two")
        await until(connection, "conversation.item.deleted")
        await connection.conversation.item.retrieve(item_id="one")
        item = (await until(connection, "conversation.item.retrieved"))[-1].item
        await connection.response.create()
        return {"greeting": greeting, "item": item.content[0].text, "after": await response(connection)}


async def wrong():
    async with CLIENT.realtime.connect(model="default") as connection:
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        for event in [
            {"type": "no.such.event", "event_id": "mine"},
            {"type": "input_audio_buffer.append", "audio": "*"},
            {"type": "session.update", "session": {"type": "realtime", "max_output_tokens": "50"}},
            {"type": "session.update", "session": {"type": "realtime", "audio": {"output": {"voice": "nobody"}}}},
        ]:
            await connection.send(event)
        await connection.input_audio_buffer.commit()
        await connection.response.cancel()
        errors = []
        while len(errors) < 6:
            event = await receive(connection)
            if event.type == "error":
                errors.append([event.error.code, event.error.param, event.error.event_id])
        await connection.conversation.item.create(item=typed("still there"))
        await connection.response.create()
        return {"errors": errors, "after": await response(connection)}


async def unknown_model():
    async with CLIENT.realtime.connect(model="nobody") as connection:
        error = await receive(connection)
        try:
            await connection.recv()
        except Exception as end:
            return [error.type, error.error.code, error.error.message, type(end).__name__]


async def main():
    print(
        json.dumps(
            {
                "text": await text_turn(),
                "pcm": await spoken("audio/pcm", pcm16(tone(24_000)), 960),
                "pcmu": await spoken("audio/pcmu", pcmu(tone(8_000)), 160),
                "pcma": await spoken("audio/pcma", pcma(tone(8_000)), 160, "semantic_vad"),
                "committed": await committed(),
                "function": await function_call(),
                "cancelled": await cancelled(),
                "interrupted": await interrupted(),
                "truncated": await truncated(),
                "cleared": await cleared(),
                "instructed": await instructed(),
                "edited": await edited(),
                "wrong": await wrong(),
                "unknown_model": await unknown_model(),
            }
        )
    )


asyncio.run(main())
