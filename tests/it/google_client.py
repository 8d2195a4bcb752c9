"""Google's published stubs, unmodified, against a server: one text turn and one audio turn on v1beta and on v1alpha.

Prints one JSON object: for each version the text of the typed turn, the transcript, and the file of raw 24 kHz samples.
"""

import json
import pathlib
import sys
import threading
import wave

import grpc
from google.ai import generativelanguage_v1alpha as v1alpha
from google.ai import generativelanguage_v1beta as v1beta
from google.ai.generativelanguage_v1alpha.services.generative_service.transports import (
    GenerativeServiceGrpcTransport as TransportAlpha,
)
from google.ai.generativelanguage_v1beta.services.generative_service.transports import (
    GenerativeServiceGrpcTransport as TransportBeta,
)

SERVER, QUESTION = sys.argv[1:]


def converse(client, requests, done):
    """Sends requests and keeps the stream open until the turn is complete."""
    text, heard, audio = "", "", b""

    def stream():
        yield from requests
        done.wait()

    for message in client.bidi_generate_content(requests=stream()):
        content = message.server_content
        for part in content.model_turn.parts:
            text += part.text
            audio += part.inline_data.data
        if hasattr(content, "input_transcription"):
            heard += content.input_transcription.text
        if content.turn_complete:
            done.set()
    return text, heard, audio


def typed(api):
    yield api.BidiGenerateContentClientMessage(
        setup={"model": "models/default", "generation_config": {"response_modalities": ["TEXT"]}}
    )
    turn = {"role": "user", "parts": [{"text": "What is the capital of Spain? Answer with one word."}]}
    yield api.BidiGenerateContentClientMessage(client_content={"turns": [turn], "turn_complete": True})


def spoken(api, alpha):
    setup = {"model": "models/default", "generation_config": {"response_modalities": ["AUDIO"]}}
    if not alpha:
        setup["input_audio_transcription"] = {}
    yield api.BidiGenerateContentClientMessage(setup=setup)
    with wave.open(QUESTION) as wav:
        while piece := wav.readframes(320):
            blob = {"mime_type": "audio/pcm;rate=16000", "data": piece}
            # v1alpha has no field for live audio but the older list of chunks.
            media = {"media_chunks": [blob]} if alpha else {"audio": blob}
            yield api.BidiGenerateContentClientMessage(realtime_input=media)


seen = {}
for name, api, transport in [("v1beta", v1beta, TransportBeta), ("v1alpha", v1alpha, TransportAlpha)]:
    client = api.GenerativeServiceClient(transport=transport(channel=grpc.insecure_channel(SERVER)))
    text, _, _ = converse(client, typed(api), threading.Event())
    _, heard, audio = converse(client, spoken(api, name == "v1alpha"), threading.Event())
    file = pathlib.Path(QUESTION).with_name(f"{name}.raw")
    file.write_bytes(audio)
    seen[name] = {"text": text, "heard": heard, "audio_file": str(file)}
print(json.dumps(seen))
