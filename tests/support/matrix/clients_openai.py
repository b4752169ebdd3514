"""The official OpenAI SDK, on every endpoint of the matrix."""

from collections.abc import AsyncGenerator
from typing import Any

from tests.support.matrix.clients import Bit, Call, Client, bit
from tests.support.matrix.endings import HELD_TOKENS
from tests.support.matrix.openai_chat import FUNCTION

HELLO: Any = {"role": "user", "content": "hi"}
CALLED: Any = {"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function", "function": FUNCTION}]}
CHATS: dict[int, Any] = {
    1: [HELLO],
    2: [HELLO, CALLED, {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}],
}
INPUTS: dict[int, Any] = {
    1: "hi",
    2: [
        {"type": "function_call", "call_id": "call_1", **FUNCTION},
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
    ],
}
FILE = ("a.mp3", bytes(1600))


async def chat_whole(call: Call) -> Bit:
    """A completion of a chat."""
    answer = await call.openai().chat.completions.create(
        model=call.cell, messages=CHATS[call.step], max_tokens=HELD_TOKENS
    )
    return bit(answer.choices[0].message.content, answer.choices[0].finish_reason)


async def chat_stream(call: Call) -> AsyncGenerator[Bit]:
    """The same, streamed."""
    stream = await call.openai().chat.completions.create(
        model=call.cell, messages=CHATS[call.step], max_tokens=HELD_TOKENS, stream=True
    )
    async with stream:
        yield Bit()
        async for chunk in stream:
            for choice in chunk.choices:
                yield bit(choice.delta.content, choice.finish_reason)


async def completion_whole(call: Call) -> Bit:
    """A completion."""
    answer = await call.openai().completions.create(model=call.cell, prompt="hi", max_tokens=HELD_TOKENS)
    return bit(answer.choices[0].text, answer.choices[0].finish_reason)


async def completion_stream(call: Call) -> AsyncGenerator[Bit]:
    """The same, streamed."""
    stream = await call.openai().completions.create(model=call.cell, prompt="hi", max_tokens=HELD_TOKENS, stream=True)
    async with stream:
        yield Bit()
        async for chunk in stream:
            for choice in chunk.choices:
                yield bit(choice.text, choice.finish_reason)


async def response_whole(call: Call) -> Bit:
    """A response."""
    answer = await call.openai().responses.create(
        model=call.cell, input=INPUTS[call.step], max_output_tokens=HELD_TOKENS
    )
    return bit(answer.output_text, answer.status)


async def response_stream(call: Call) -> AsyncGenerator[Bit]:
    """The same, streamed."""
    stream = await call.openai().responses.create(
        model=call.cell, input=INPUTS[call.step], max_output_tokens=HELD_TOKENS, stream=True
    )
    async with stream:
        yield Bit()
        async for event in stream:
            if event.type == "response.output_text.delta":
                yield bit(event.delta)
            elif event.type in {"response.completed", "response.incomplete"}:
                yield bit("", event.response.status)
            else:
                yield Bit()


async def transcription_whole(call: Call) -> Bit:
    """A transcription."""
    answer = await call.openai().audio.transcriptions.create(model=call.cell, file=FILE)
    return bit(answer.text, "stop")


async def transcription_stream(call: Call) -> AsyncGenerator[Bit]:
    """The same, streamed. Its end has no reason."""
    stream = await call.openai().audio.transcriptions.create(model=call.cell, file=FILE, stream=True)
    async with stream:
        yield Bit()
        async for event in stream:
            yield bit(event.delta) if event.type == "transcript.text.delta" else bit("", "stop")


async def speech_whole(call: Call) -> Bit:
    """Plain sound."""
    answer = await call.openai().audio.speech.create(model=call.cell, voice="alloy", input="hi")
    return Bit(len(answer.content) // 96, "stop")


async def image_whole(call: Call) -> Bit:
    """A picture."""
    answer = await call.openai().images.generate(model=call.cell, prompt="hi", size="1024x1024", quality="low")
    return Bit(4 * len(answer.data or ()), "stop")


async def image_stream(call: Call) -> AsyncGenerator[Bit]:
    """The same, streamed: a partial picture is a word."""
    stream = await call.openai().images.generate(
        model=call.cell, prompt="hi", size="1024x1024", quality="low", stream=True
    )
    async with stream:
        yield Bit()
        async for event in stream:
            yield Bit(1) if event.type == "image_generation.partial_image" else Bit(0, "stop")


async def embedding_whole(call: Call) -> Bit:
    """A vector: it has no words, and is told as if it had all of them."""
    answer = await call.openai().embeddings.create(model=call.cell, input="hi", encoding_format="float")
    return Bit(4 * len(answer.data), "stop")


async def never(call: Call) -> AsyncGenerator[Bit]:
    """An endpoint that is not streamed."""
    if call.cell:
        raise NotImplementedError(call.cell)
    yield Bit()


CHAT = Client(chat_whole, chat_stream)
COMPLETIONS = Client(completion_whole, completion_stream)
RESPONSES = Client(response_whole, response_stream)
TRANSCRIPTIONS = Client(transcription_whole, transcription_stream)
IMAGES = Client(image_whole, image_stream)
EMBEDDINGS = Client(embedding_whole, never)
