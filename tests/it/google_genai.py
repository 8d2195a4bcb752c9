"""Google's google-genai, unmodified but for TLS, against a server's WebSocket paths with the scripted engine.

The SDK opens wss whenever it has a key of its own making, so plain ws is reached by its way for gateways: Vertex mode
without a project takes the address as it is, and only its TLS context is put away. Gemini mode replaces the scheme in
one attribute. Prints one JSON object with what came of each conversation.
"""

import asyncio
import json
import sys
import wave

from google import genai
from google.genai import errors, types

SERVER, QUESTION = sys.argv[1:]


def gemini(version):
    options = types.HttpOptions(base_url=f"https://{SERVER}", api_version=version)
    client = genai.Client(api_key="any", http_options=options)
    api = client._api_client
    api._websocket_base_url = lambda *_: f"ws://{SERVER}"
    api._websocket_ssl_ctx.pop("ssl", None)
    return client


def vertex():
    path = "/ws/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent"
    client = genai.Client(vertexai=True, http_options=types.HttpOptions(base_url=f"ws://{SERVER}{path}"))
    client._api_client._websocket_ssl_ctx.pop("ssl", None)
    return client


async def turn(session, seen=None):
    seen = seen or {}
    seen = {**{key: "" for key in ("text", "heard", "said")}, "audio_bytes": 0, "tokens": None, **seen}
    seen = {**{key: [] for key in ("marks", "calls", "sources")}, **seen}
    async for message in session.receive():
        if message.voice_activity:
            seen["marks"].append(message.voice_activity.voice_activity_type.value)
        if message.tool_call:
            seen["calls"] += [[call.id, call.name, call.args] for call in message.tool_call.function_calls]
            return seen
        if message.usage_metadata:
            seen["tokens"] = message.usage_metadata.response_token_count
        content = message.server_content
        if not content:
            continue
        if content.grounding_metadata:
            seen["sources"] += [chunk.web.uri for chunk in content.grounding_metadata.grounding_chunks]
        for part in (content.model_turn and content.model_turn.parts) or []:
            seen["text"] += part.text or ""
            seen["audio_bytes"] += len(part.inline_data.data) if part.inline_data else 0
        seen["heard"] += (content.input_transcription and content.input_transcription.text) or ""
        seen["said"] += (content.output_transcription and content.output_transcription.text) or ""
        seen["marks"] += [
            mark for mark in ("interrupted", "generation_complete", "turn_complete") if getattr(content, mark)
        ]
    return seen


def typed(words):
    return types.Content(role="user", parts=[types.Part(text=words)])


async def speak(session, frames):
    with wave.open(QUESTION) as wav:
        while frames and (piece := wav.readframes(320)):
            frames -= 1
            await session.send_realtime_input(audio=types.Blob(data=piece, mime_type="audio/pcm;rate=16000"))


async def text_turn(client):
    async with client.aio.live.connect(model="default", config={"response_modalities": ["TEXT"]}) as session:
        await session.send_client_content(turns=typed("hello there"), turn_complete=True)
        return {"session": session.session_id, **await turn(session)}


async def audio_turn(client):
    config = types.LiveConnectConfig(
        response_modalities=["AUDIO"],
        input_audio_transcription={},
        output_audio_transcription={},
        speech_config={"voice_config": {"prebuilt_voice_config": {"voice_name": "Kore"}}},
        realtime_input_config={
            "automatic_activity_detection": {"prefix_padding_ms": 20, "silence_duration_ms": 500},
            "activity_handling": "START_OF_ACTIVITY_INTERRUPTS",
        },
    )
    async with client.aio.live.connect(model="models/default", config=config) as session:
        await speak(session, 10_000)
        await session.send_realtime_input(audio_stream_end=True)
        return await turn(session)


async def interruption(client):
    config = {"response_modalities": ["AUDIO"], "output_audio_transcription": {}}
    async with client.aio.live.connect(model="default", config=config) as session:
        await session.send_client_content(turns=typed("say 600 words"), turn_complete=True)
        async for message in session.receive():
            if message.server_content and message.server_content.model_turn:
                break
        await speak(session, 10_000)
        seen = await turn(session)
        return {"first": seen, "second": await turn(session)}


def double(n: int) -> dict:
    """Doubles a number."""
    return {"output": 2 * n}


async def function_call(client):
    config = {"response_modalities": ["TEXT"], "tools": [double, {"google_search": {}}]}
    async with client.aio.live.connect(model="default", config=config) as session:
        await session.send_client_content(turns=typed("call double"), turn_complete=True)
        seen = await turn(session)
        [[id, name, arguments]] = seen["calls"]
        answer = types.FunctionResponse(id=id, name=name, response=double(**arguments))
        # What comes twice, late or for nobody is dropped, and does not end the conversation.
        stray = types.FunctionResponse(id="nobody's", name=name, response={})
        await session.send_tool_response(function_responses=[stray, answer, answer])
        return {"first": await turn(session, seen), "second": await searched(session)}


async def searched(session):
    await session.send_client_content(turns=typed("call search"), turn_complete=True)
    return await turn(session)


async def refusal(client):
    try:
        async with client.aio.live.connect(model="nobody", config={"response_modalities": ["TEXT"]}):
            return None
    except errors.APIError as error:
        return [error.code, str(error)]


async def main():
    seen = {}
    for name, client in [("v1", gemini("v1")), ("v1beta", gemini("v1beta")), ("v1alpha", gemini("v1alpha")), ("vertex", vertex())]:
        seen[name] = {"text": await text_turn(client), "audio": await audio_turn(client)}
    client = gemini("v1beta")
    seen["interruption"] = await interruption(client)
    seen["function"] = await function_call(client)
    seen["refusal"] = await refusal(client)
    print(json.dumps(seen))


asyncio.run(main())
