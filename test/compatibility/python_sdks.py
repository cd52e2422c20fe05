"""The official Python clients of OpenAI and Anthropic against a running server.

    python test/compatibility/python_sdks.py http://127.0.0.1:1234

Asks nothing of the model but that it answers, so it runs against any. Prints one line for each check: ok, FAILED, or
NOT RUN where a package (`pip install openai anthropic`) or a route of the server is missing. Ends with status 1 when
a check failed.
"""

import sys
import traceback

QUESTION = [{"role": "user", "content": "Say hello."}]
TOKENS = 16


def openai_checks(url):
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)

    def chat():
        answer = client.chat.completions.create(model="default", messages=QUESTION, max_tokens=TOKENS, seed=1)
        assert answer.choices[0].finish_reason in ("stop", "length"), answer
        usage = answer.usage
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage
        assert usage.completion_tokens <= TOKENS, usage

    def chat_stream():
        body = dict(model="default", messages=QUESTION, max_tokens=TOKENS, seed=1, temperature=0)
        whole = client.chat.completions.create(**body)
        chunks = list(client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == (whole.choices[0].message.content or ""), (text, whole)
        assert [chunk.usage is not None for chunk in chunks].count(True) == 1, chunks[-1]
        assert len({chunk.id for chunk in chunks}) == 1

    def chat_stream_helper():
        with client.chat.completions.stream(model="default", messages=QUESTION, max_tokens=TOKENS) as stream:
            for _ in stream:
                pass
            # The final completion is refused by the client when the limit cut it; what it is made of is not.
            choice = stream.current_completion_snapshot.choices[0]
        assert choice.message.role == "assistant" and choice.finish_reason in ("stop", "length"), choice

    def log_probabilities():
        answer = client.chat.completions.create(
            model="default", messages=QUESTION, max_tokens=4, logprobs=True, top_logprobs=2, temperature=0
        )
        content = answer.choices[0].logprobs.content
        written = b"".join(bytes(token.bytes) for token in content)
        assert written.decode("utf-8", "replace").strip() == (answer.choices[0].message.content or "").strip()
        assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in content)

    def completions():
        body = dict(model="default", prompt="Once upon a time", max_tokens=TOKENS, temperature=0)
        whole = client.completions.create(**body)
        text = "".join(chunk.choices[0].text for chunk in client.completions.create(**body, stream=True) if chunk.choices)
        assert text == whole.choices[0].text, (text, whole)

    def models():
        names = [model.id for model in client.models.list()]
        assert names, "no model"
        assert client.models.retrieve(names[0]).id == names[0]

    def embeddings():
        texts = ["one", "two and more"]
        # The client asks for base64 unless it is told otherwise.
        packed, plain = (
            client.embeddings.create(model="default", input=texts, **more) for more in ({}, {"encoding_format": "float"})
        )
        assert [entry.index for entry in packed.data] == [0, 1]
        assert [entry.embedding for entry in packed.data] == [entry.embedding for entry in plain.data]
        for entry in packed.data:
            assert abs(sum(value * value for value in entry.embedding) - 1) < 1e-5, entry
        assert packed.usage.prompt_tokens == packed.usage.total_tokens > 1, packed.usage

    def responses():
        answer = client.responses.create(model="default", input="Say hello.", max_output_tokens=TOKENS)
        assert answer.status in ("completed", "incomplete"), answer
        assert client.responses.retrieve(answer.id).id == answer.id
        client.responses.delete(answer.id)

    def responses_stream():
        events = list(client.responses.create(model="default", input="Hi", max_output_tokens=TOKENS, stream=True))
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[0].type == "response.created"
        assert events[-1].type in ("response.completed", "response.incomplete"), events[-1]

    def errors():
        expect(openai.NotFoundError, lambda: client.chat.completions.create(model="gpt-9", messages=QUESTION))
        expect(
            openai.BadRequestError,
            lambda: client.chat.completions.create(model="default", messages=QUESTION, temperature=9),
        )

    checks = [chat, chat_stream, chat_stream_helper, log_probabilities, completions, models, embeddings]
    return [*checks, responses, responses_stream, errors], openai.NotFoundError


def anthropic_checks(url):
    import anthropic

    client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=120)
    # Newer clients have no argument for the temperature.
    body = dict(model="default", messages=QUESTION, max_tokens=TOKENS, extra_body={"temperature": 0})

    def message():
        answer = client.messages.create(**body, system="Be brief.")
        assert answer.role == "assistant" and answer.type == "message"
        assert answer.stop_reason in ("end_turn", "max_tokens"), answer
        assert answer.usage.output_tokens <= TOKENS
        assert answer._request_id, "no request id"

    def message_stream():
        whole = client.messages.create(**body)
        with client.messages.stream(**body) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        texts = [block.text for block in whole.content if block.type == "text"]
        assert text == "".join(texts), (text, texts)
        assert final.stop_reason == whole.stop_reason
        assert final.usage.output_tokens == whole.usage.output_tokens

    def stop_sequence():
        texts = [block.text for block in client.messages.create(**body).content if block.type == "text"]
        words = "".join(texts).split()
        if len(words) < 2:
            return
        answer = client.messages.create(**body, stop_sequences=[words[1]])
        assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", words[1]), answer

    def count_tokens():
        counted = client.messages.count_tokens(model="default", messages=QUESTION)
        usage = client.messages.create(**body).usage
        assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens

    def errors():
        expect(anthropic.NotFoundError, lambda: client.messages.create(**{**body, "model": "claude-9"}))
        expect(anthropic.BadRequestError, lambda: client.messages.create(**{**body, "max_tokens": -1}))

    return [message, message_stream, stop_sequence, count_tokens, errors], anthropic.NotFoundError


def expect(kind, call):
    try:
        call()
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")


def missing_route(error):
    return "There is no route" in str(error)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    url = sys.argv[1].rstrip("/")
    failed = 0
    for package, make in (("openai", openai_checks), ("anthropic", anthropic_checks)):
        try:
            checks, not_found = make(url)
        except ImportError as error:
            print(f"NOT RUN {package}: {error}")
            continue
        for check in checks:
            name = f"{package} {check.__name__}"
            try:
                check()
                print(f"ok {name}")
            except not_found as error:
                if missing_route(error):
                    print(f"NOT RUN {name}: {error}")
                    continue
                failed += 1
                print(f"FAILED {name}: {error}")
            except Exception:
                failed += 1
                print(f"FAILED {name}: {traceback.format_exc()}")
    sys.exit(1 if failed else 0)


main()
