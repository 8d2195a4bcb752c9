"""LiveKit's OpenAI plugin, with only its base URL changed, against a server's /v1/realtime with the scripted engine.

The plugin's session is driven as an agent would drive it, without a room. Prints one JSON object.
"""

import asyncio
import json
import math
import sys

import aiohttp
from livekit import rtc
from livekit.agents import llm
from livekit.plugins import openai

(SERVER,) = sys.argv[1:]


def tone(loud_ms=800, silent_ms=1000, rate=24_000):
    loud = [round(16_000 * math.sin(math.tau * 440 * n / rate)) for n in range(rate * loud_ms // 1000)]
    samples = loud + [0] * (rate * silent_ms // 1000)
    step = rate // 50
    for at in range(0, len(samples), step):
        piece = samples[at : at + step]
        data = b"".join(sample.to_bytes(2, "little", signed=True) for sample in piece)
        yield rtc.AudioFrame(data, rate, 1, len(piece))


async def collect(generation):
    """What a generation says, and what it calls."""
    seen = {"said": "", "samples": 0, "calls": []}

    async def text_of(message):
        async for delta in message.text_stream:
            seen["said"] += delta

    async def audio_of(message):
        async for frame in message.audio_stream:
            seen["samples"] += frame.samples_per_channel

    async for message in generation.message_stream:
        await asyncio.gather(text_of(message), audio_of(message))
    async for call in generation.function_stream:
        seen["calls"].append([call.call_id, call.name, json.loads(call.arguments)])
    return seen


async def main():
    @llm.function_tool
    async def clock() -> str:
        """The time."""
        return "noon"

    seen = {}
    async with aiohttp.ClientSession() as http:
        model = openai.realtime.RealtimeModel(api_key="any", base_url=f"http://{SERVER}/v1", http_session=http)
        session = model.session()
        generations, heard, errors = asyncio.Queue(), asyncio.Queue(), []
        session.on("generation_created", generations.put_nowait)
        session.on("input_audio_transcription_completed", lambda event: event.is_final and heard.put_nowait(event))
        session.on("error", lambda event: errors.append(str(event.error)))

        await session.update_instructions("be brief")
        await session.update_tools([clock])
        greeting = await session.generate_reply(instructions="greet the user")
        seen["greeting"] = await collect(greeting)
        generations.get_nowait()

        for frame in tone():
            session.push_audio(frame)
        seen["spoken"] = await collect(await generations.get())
        seen["heard"] = (await heard.get()).transcript

        chat = session.chat_ctx.copy()
        chat.add_message(role="user", content="call clock")
        await session.update_chat_ctx(chat)
        called = await collect(await session.generate_reply())
        generations.get_nowait()
        call_id = called["calls"][0][0]
        chat = session.chat_ctx.copy()
        chat.items.append(llm.FunctionCallOutput(call_id=call_id, name="clock", output="noon", is_error=False))
        await session.update_chat_ctx(chat)
        answered = await collect(await session.generate_reply())
        generations.get_nowait()
        seen["function"] = {"called": called["calls"], "answered": answered["said"]}

        chat = session.chat_ctx.copy()
        chat.add_message(role="user", content="say 600 words")
        await session.update_chat_ctx(chat)
        long = await session.generate_reply()
        generations.get_nowait()
        message = await anext(aiter(long.message_stream))
        await anext(aiter(message.audio_stream))
        session.interrupt()
        session.truncate(message_id=message.message_id, modalities=["audio"], audio_end_ms=100)
        said = "".join([delta async for delta in message.text_stream])
        seen["interrupted"] = len(said.split()) < 600

        chat = session.chat_ctx.copy()
        chat.add_message(role="user", content="still there")
        await session.update_chat_ctx(chat)
        seen["after"] = (await collect(await session.generate_reply()))["said"]
        seen["errors"] = errors
        await session.aclose()
    print(json.dumps(seen))


asyncio.run(main())
