"""Pipecat's OpenAI Realtime service, with only its base URL changed, against a server with the scripted engine.

A pipeline of the service between the two context aggregators, as bots have it. Prints one JSON object.
"""

import asyncio
import json
import math
import sys

from loguru import logger
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    InputAudioRawFrame,
    LLMFullResponseEndFrame,
    LLMRunFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.turns.user_turn_strategies import ExternalUserTurnStrategies
from pipecat.workers.runner import WorkerRunner

(SERVER,) = sys.argv[1:]
logger.remove()
logger.add(sys.stderr, level="WARNING")


class Watch(FrameProcessor):
    """Tells of frames that pass."""

    def __init__(self, kinds):
        super().__init__()
        self.kinds = kinds
        self.frames = asyncio.Queue()

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, self.kinds):
            self.frames.put_nowait(frame)
        await self.push_frame(frame, direction)


def tone(loud_ms=800, silent_ms=1000, rate=24_000):
    loud = [round(16_000 * math.sin(math.tau * 440 * n / rate)) for n in range(rate * loud_ms // 1000)]
    samples = loud + [0] * (rate * silent_ms // 1000)
    for at in range(0, len(samples), rate // 50):
        piece = samples[at : at + rate // 50]
        data = b"".join(sample.to_bytes(2, "little", signed=True) for sample in piece)
        yield InputAudioRawFrame(audio=data, sample_rate=rate, num_channels=1)


async def reply(said, last):
    """What is said until it ends with these words, and then the response."""
    seen = {"said": "", "bytes": 0}
    while True:
        match await asyncio.wait_for(said.frames.get(), 60):
            case TTSTextFrame(text=text):
                seen["said"] += text
            case TTSAudioRawFrame(audio=audio):
                seen["bytes"] += len(audio)
            case LLMFullResponseEndFrame() if seen["said"].endswith(last):
                return seen
            case ErrorFrame(error=error):
                raise RuntimeError(error)


async def main():
    properties = events.SessionProperties(
        audio=events.AudioConfiguration(
            input=events.AudioInput(
                transcription=events.InputAudioTranscription(), turn_detection=events.TurnDetection()
            )
        ),
    )
    service = OpenAIRealtimeLLMService(
        api_key="any",
        base_url=f"ws://{SERVER}/v1/realtime",
        settings=OpenAIRealtimeLLMService.Settings(session_properties=properties, system_instruction="be brief"),
    )
    called = []

    async def clock(params):
        called.append(params.arguments)
        await params.result_callback({"time": "noon"})

    service.register_function("clock", clock)
    tools = ToolsSchema([FunctionSchema(name="clock", description="The time.", properties={}, required=[])])
    context = LLMContext([{"role": "user", "content": "call clock"}], tools)
    # The server finds the turns.
    params = LLMUserAggregatorParams(user_turn_strategies=ExternalUserTurnStrategies())
    user, assistant = LLMContextAggregatorPair(context, user_params=params)
    said = Watch((TTSTextFrame, TTSAudioRawFrame, LLMFullResponseEndFrame, ErrorFrame))
    heard = Watch((TranscriptionFrame,))
    worker = PipelineWorker(
        Pipeline([user, heard, service, said, assistant]),
        params=PipelineParams(audio_in_sample_rate=24_000, audio_out_sample_rate=24_000),
    )
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())

    await worker.queue_frames([LLMRunFrame()])
    seen = {"function": await reply(said, "}"), "called": called}
    # At the pace of a microphone: the pipeline drops what is said while it takes the user to begin.
    for frame in tone():
        await worker.queue_frame(frame)
        await asyncio.sleep(0.02)
    seen["spoken"] = await reply(said, "ms")
    seen["heard"] = (await heard.frames.get()).text
    await worker.queue_frames([EndFrame()])
    await running
    print(json.dumps(seen))


asyncio.run(main())
