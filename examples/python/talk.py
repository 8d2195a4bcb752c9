"""Sends a WAV file (16 bit, mono) to a Causerie server and saves the spoken reply.

    pip install -r requirements.txt
    python talk.py question.wav reply.wav [localhost:50051]

It uses Google's published gRPC stubs for BidiGenerateContent, unmodified.
"""

import sys
import wave

import grpc
from google.ai.generativelanguage_v1beta import BidiGenerateContentClientMessage as Message
from google.ai.generativelanguage_v1beta import GenerativeServiceClient
from google.ai.generativelanguage_v1beta.services.generative_service.transports import GenerativeServiceGrpcTransport

question, reply, server = (*sys.argv[1:], "localhost:50051")[:3]


def messages():
    wanted = {"model": "models/default", "input_audio_transcription": {}, "output_audio_transcription": {}}
    yield Message(setup=wanted)
    with wave.open(question) as wav:
        mime_type = f"audio/pcm;rate={wav.getframerate()}"
        while piece := wav.readframes(wav.getframerate() // 50):
            yield Message(realtime_input={"audio": {"mime_type": mime_type, "data": piece}})
    yield Message(realtime_input={"audio_stream_end": True})


client = GenerativeServiceClient(transport=GenerativeServiceGrpcTransport(channel=grpc.insecure_channel(server)))
heard, said, audio = "", "", b""
for message in client.bidi_generate_content(requests=messages()):
    content = message.server_content
    heard += content.input_transcription.text
    said += content.output_transcription.text
    audio += b"".join(part.inline_data.data for part in content.model_turn.parts)

with wave.open(reply, "wb") as wav:
    wav.setparams((1, 2, 24_000, 0, "NONE", ""))
    wav.writeframes(audio)
print(f"heard: {heard}\nsaid:  {said}\nsaved {len(audio) / 48_000:.1f} s of speech to {reply}")
