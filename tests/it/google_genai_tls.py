"""Google's google-genai as it is, over TLS with a certificate of `causerie cert`, against a server with keys.

Prints one JSON object: what each conversation was answered, or which error the SDK gave for it.
"""

import asyncio
import json
import os
import sys

SERVER, AUTHORITY, KEY = sys.argv[1:]
os.environ["SSL_CERT_FILE"] = AUTHORITY

from google import genai  # noqa: E402  (it reads the environment)
from google.genai import types  # noqa: E402


def client(version=None, key=KEY):
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=SERVER, api_version=version))


async def said(client, model="default", then=None, **config):
    config = {"response_modalities": ["TEXT"], **config}
    async with client.aio.live.connect(model=model, config=config) as session:
        if then:
            return await then()
        turn = types.Content(role="user", parts=[types.Part(text="hello there")])
        await session.send_client_content(turns=turn, turn_complete=True)
        return "".join([message.text or "" async for message in session.receive()])


async def error(conversation):
    try:
        return await conversation
    except Exception as error:
        response = getattr(error, "response", None)
        return [type(error).__name__, getattr(error, "code", None) or getattr(response, "status_code", None)]


async def main():
    seen = {}
    for version in ["v1", "v1beta", "v1alpha"]:
        seen[version] = await said(client(version))
    seen["default"] = await said(client())
    # The key may hold one conversation at once.
    seen["another at once"] = await said(client(), then=lambda: error(said(client())))
    seen["wrong key"] = await error(said(client(key="causerie_eve")))
    seen["unknown model"] = await error(said(client(), model="nobody"))
    voice = {"voice_config": {"prebuilt_voice_config": {"voice_name": 40 * "x"}}}
    seen["unknown voice"] = await error(said(client(), response_modalities=["AUDIO"], speech_config=voice))
    del os.environ["SSL_CERT_FILE"]
    seen["unknown authority"] = await error(said(client()))
    print(json.dumps(seen))


asyncio.run(main())
