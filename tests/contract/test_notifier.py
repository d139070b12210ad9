"""Notifiers against real receivers: what they send, and what they make of every kind of answer."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from edge_agent.wire.event import Priority
from gateway.adapters import notifier_smtp, notifier_webhook
from gateway.adapters.notifier_smtp import SUBJECT_MAX_CHARS, compose
from gateway.adapters.notifiers import open_notifier
from gateway.domain.channels import Channel, SmtpChannel, StartTls, WebhookChannel
from gateway.domain.notice import Alert, Recipient
from gateway.domain.notify import NoticeEvent
from gateway.ports import Delivered, Rejected, Retryable
from tests.certificates import Authority
from tests.server_process import free_port

pytestmark = pytest.mark.thorough

ALERT = Alert(
    delivery="01OCC.2/raised/1/li-qiang/hook",
    event=NoticeEvent.RAISED,
    to=Recipient("li-qiang", "李强", "shift_manager", "+86 138", "li@plant.example"),
    language="zh",
    title="P1 紧急违规：18号混砂机 检修门 打开且设备运行",
    text="P1 紧急违规：打开且设备运行\n监测信息，非安全功能",
    priority=Priority.P1,
    site="changyi",
    area="moulding",
    machine="mixer-18",
    guard="door-1",
    rule="guard_open_motion",
    occurrence="01OCC.2",
    alarm=481,
    since="2026-11-22T06:03:22.412Z",
    at="2026-11-22T06:03:23.000Z",
    url="http://board.example/a/481",
)


async def send(channel: Channel, alert: Alert = ALERT) -> Delivered | Retryable | Rejected:
    notifier = open_notifier(channel)
    try:
        return await notifier.send(alert)
    finally:
        await notifier.close()


@contextlib.asynccontextmanager
async def speaking_for_ever(first: bytes, more: bytes) -> AsyncIterator[int]:
    """The port of a server that never comes to an end."""
    spoken: list[asyncio.Task[None]] = []

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        try:
            while True:
                writer.write(more)
                await writer.drain()
                await asyncio.sleep(0.05)
        except (ConnectionError, asyncio.CancelledError):
            writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        spoken.append(asyncio.create_task(speak(reader, writer)))

    async with await asyncio.start_server(begin, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        for task in spoken:
            task.cancel()
        await asyncio.wait(spoken)


# ---- webhook


@dataclass
class Hook:
    """A receiver that answers with `status` and remembers what came."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    answer: bytes = b""
    is_hung: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def hook() -> Iterator[Hook]:
    receiver = Hook()
    receiver.is_hung.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.headers = dict(self.headers.items())
            receiver.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            receiver.is_hung.wait(60)
            self.send_response(receiver.status)
            self.send_header("Content-Length", str(len(receiver.answer)))
            self.send_header("Location", receiver.url)
            self.end_headers()
            self.wfile.write(receiver.answer)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        receiver.url = f"http://127.0.0.1:{server.server_port}/alerts"
        yield receiver
        receiver.is_hung.set()
        server.shutdown()
        thread.join()


async def test_a_webhook_gets_the_contracts_body(hook: Hook) -> None:
    assert await send(WebhookChannel(hook.url)) == Delivered()
    (body,) = hook.bodies
    assert json.loads(body) == {
        "delivery": "01OCC.2/raised/1/li-qiang/hook",
        "event": "raised",
        "to": {
            "id": "li-qiang",
            "name": "李强",
            "role": "shift_manager",
            "mobile": "+86 138",
            "email": "li@plant.example",
        },
        "language": "zh",
        "title": ALERT.title,
        "text": ALERT.text,
        "priority": "P1",
        "site": "changyi",
        "area": "moulding",
        "machine": "mixer-18",
        "guard": "door-1",
        "rule": "guard_open_motion",
        "occurrence": "01OCC.2",
        "alarm": 481,
        "since": "2026-11-22T06:03:22.412Z",
        "at": "2026-11-22T06:03:23.000Z",
        "url": "http://board.example/a/481",
    }
    assert hook.headers["Idempotency-Key"] == ALERT.delivery
    assert "X-Guardwatch-Signature" not in hook.headers


async def test_with_a_secret_the_body_is_signed(hook: Hook) -> None:
    await send(WebhookChannel(hook.url, "geheim"))
    expected = hmac.new(b"geheim", hook.bodies[0], hashlib.sha256).hexdigest()
    assert hook.headers["X-Guardwatch-Signature"] == f"sha256={expected}"


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_every_2xx_is_delivered(hook: Hook, status: int) -> None:
    hook.status = status
    assert await send(WebhookChannel(hook.url)) == Delivered()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 422])
async def test_a_4xx_is_a_refusal_for_good_with_what_the_receiver_said(hook: Hook, status: int) -> None:
    hook.status, hook.answer = status, b"no such tenant"
    assert await send(WebhookChannel(hook.url)) == Rejected(f"HTTP {status}: no such tenant")


@pytest.mark.parametrize("status", [301, 307, 408, 429, 500, 502, 503])
async def test_a_redirect_a_busy_or_a_broken_receiver_is_tried_again(hook: Hook, status: int) -> None:
    hook.status = status
    assert isinstance(await send(WebhookChannel(hook.url)), Retryable)
    assert len(hook.bodies) == 1  # a redirect is not followed: a body with names goes nowhere else


async def test_a_receiver_that_takes_it_and_never_answers_is_tried_again(
    hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier_webhook, "TIMEOUT_S", 0.3)
    hook.is_hung.clear()
    assert isinstance(await send(WebhookChannel(hook.url)), Retryable)
    assert len(hook.bodies) == 1


async def test_a_receiver_that_is_not_there_or_speaks_no_tls_is_tried_again(hook: Hook) -> None:
    assert isinstance(await send(WebhookChannel(f"http://127.0.0.1:{free_port()}/")), Retryable)
    assert isinstance(await send(WebhookChannel(hook.url.replace("http:", "https:"))), Retryable)
    assert isinstance(await send(WebhookChannel("http://name.invalid/")), Retryable)


async def test_a_receiver_whose_answer_never_ends_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier_webhook, "EXCHANGE_S", 1.0)

    async with speaking_for_ever(b"HTTP/1.1 500 Oh\r\n\r\n", b"x") as port:
        tarpit = WebhookChannel(f"http://127.0.0.1:{port}/")
        assert isinstance(await asyncio.wait_for(send(tarpit), 5), Retryable)


async def test_a_key_that_an_agent_made_up_cannot_forge_headers(hook: Hook) -> None:
    wicked = replace(ALERT, delivery="OCC\r\nX-Forged: 1 检修门/raised/1/li/hook")
    assert await send(WebhookChannel(hook.url), wicked) == Delivered()
    assert "X-Forged" not in hook.headers
    assert json.loads(hook.bodies[0])["delivery"] == wicked.delivery


# ---- mail


@dataclass
class Mailbox:
    """An SMTP server's doings: what it took, and how it answers RCPT and DATA."""

    mails: list[tuple[list[str], EmailMessage]] = field(default_factory=list)
    rcpt: str = "250 ok"
    data: str = "250 taken"

    async def handle_RCPT(  # noqa: N802 - the library's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if self.rcpt.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.rcpt

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content
        assert isinstance(content, bytes)
        mail = message_from_bytes(content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        if self.data.startswith("250"):
            self.mails.append((envelope.rcpt_tos, mail))
        return self.data


def only_the_right_password(
    _server: object, _session: object, _envelope: object, _how: str, given: object
) -> AuthResult:
    is_right = isinstance(given, LoginPassword) and (given.login, given.password) == (b"gw", b"geheim")
    return AuthResult(success=is_right)


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def smtp(mailbox: Mailbox) -> Iterator[SmtpChannel]:
    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=free_port(),
        authenticator=only_the_right_password,
        auth_require_tls=False,
    )
    controller.start()
    yield SmtpChannel("127.0.0.1", controller.port, is_tls=False, sender="guardwatch@plant.example")
    controller.stop()


async def test_a_mail_reaches_its_one_recipient_with_everything_in_it(
    smtp: SmtpChannel, mailbox: Mailbox
) -> None:
    assert await send(smtp) == Delivered()
    ((recipients, mail),) = mailbox.mails
    assert recipients == ["li@plant.example"]
    assert (mail["From"], mail["To"]) == ("guardwatch@plant.example", "li@plant.example")
    assert mail["Subject"] == "[P1] 紧急违规：18号混砂机 检修门 打开且设备运行"
    assert mail["Message-ID"] == "<01OCC.2/raised/1/li-qiang/hook@plant.example>"
    assert mail.get_content_type() == "text/plain"
    assert mail.get_content().rstrip("\n") == ALERT.text


async def test_the_same_message_sent_twice_is_one_mail_and_all_of_an_alarm_are_one_thread(
    smtp: SmtpChannel, mailbox: Mailbox
) -> None:
    over = replace(ALERT, event=NoticeEvent.CLEARED, delivery="01OCC.2/cleared/1/li-qiang/hook")
    other = replace(ALERT, alarm=482)
    for alert in (ALERT, ALERT, over, other):
        assert await send(smtp, alert) == Delivered()
    first, again, cleared, foreign = (mail for _, mail in mailbox.mails)
    assert first["Message-ID"] == again["Message-ID"] != cleared["Message-ID"]
    assert first["References"] == again["References"] == cleared["References"] != foreign["References"]


@pytest.mark.parametrize(
    ("step", "answer"), [("rcpt", "550 no such user"), ("data", "554 spam"), ("data", "552 full")]
)
async def test_a_5xx_is_a_refusal_for_good(
    smtp: SmtpChannel, mailbox: Mailbox, step: str, answer: str
) -> None:
    setattr(mailbox, step, answer)
    assert await send(smtp) == Rejected(f"SMTP {answer[:3]}: {answer[4:]}")


@pytest.mark.parametrize(("step", "answer"), [("rcpt", "451 later"), ("data", "452 no space")])
async def test_a_4xx_is_tried_again(smtp: SmtpChannel, mailbox: Mailbox, step: str, answer: str) -> None:
    setattr(mailbox, step, answer)
    assert await send(smtp) == Retryable(f"SMTP {answer[:3]}: {answer[4:]}")


async def test_a_login_works_and_a_refused_one_is_no_verdict_on_the_message(smtp: SmtpChannel) -> None:
    assert await send(replace(smtp, username="gw", password="geheim")) == Delivered()
    assert isinstance(await send(replace(smtp, username="gw", password="wrong")), Retryable)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def server_context(authority: Authority) -> ssl.SSLContext:
    """A mail server's: it wants no certificate of its clients."""
    context = authority.server_context("mail")
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("starttls", [StartTls.REQUIRED, StartTls.AUTO])
async def test_a_mail_goes_through_starttls_to_a_server_that_is_trusted_and_to_no_other(
    mailbox: Mailbox, authority: Authority, starttls: StartTls
) -> None:
    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=free_port(),
        tls_context=server_context(authority),
        require_starttls=True,
        authenticator=only_the_right_password,
    )
    controller.start()
    channel = SmtpChannel(
        "127.0.0.1", controller.port, is_tls=False, sender="gw@plant.example", starttls=starttls
    )
    known = replace(channel, ca_file=authority.ca_file, username="gw", password="geheim")
    assert await send(known) == Delivered()
    assert isinstance(await send(replace(known, ca_file=None)), Retryable)
    assert len(mailbox.mails) == 1
    controller.stop()


async def test_a_mail_goes_through_tls_from_the_first_byte_to_a_server_that_is_trusted_and_to_no_other(
    mailbox: Mailbox, authority: Authority
) -> None:
    controller = Controller(
        mailbox, hostname="127.0.0.1", port=free_port(), ssl_context=server_context(authority)
    )
    controller.start()
    channel = SmtpChannel("127.0.0.1", controller.port, is_tls=True, sender="gw@plant.example")
    assert await send(replace(channel, ca_file=authority.ca_file)) == Delivered()
    assert isinstance(await send(channel), Retryable)
    assert len(mailbox.mails) == 1
    controller.stop()


async def test_encryption_that_is_demanded_and_not_offered_stops_the_mail(
    smtp: SmtpChannel, mailbox: Mailbox
) -> None:
    assert isinstance(await send(replace(smtp, starttls=StartTls.REQUIRED)), Retryable)
    assert isinstance(await send(replace(smtp, is_tls=True)), Retryable)
    assert mailbox.mails == []


async def test_a_server_that_is_not_there_or_hangs_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier_smtp, "TIMEOUT_S", 0.3)
    gone = SmtpChannel("127.0.0.1", free_port(), is_tls=False, sender="a@b")
    assert isinstance(await send(gone), Retryable)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        hung = replace(gone, port=silent.getsockname()[1])
        assert isinstance(await asyncio.wait_for(send(hung), 30), Retryable)


async def test_a_server_that_speaks_for_ever_is_tried_again_and_holds_up_nothing_but_mail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notifier_smtp, "CONVERSATION_S", 1.0)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    async with speaking_for_ever(b"", b"220-welcome\r\n") as port:
        tarpit = SmtpChannel("127.0.0.1", port, is_tls=False, sender="a@b")
        sending = asyncio.create_task(send(tarpit))
        await asyncio.sleep(0)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "read"), 5) == "read"
        assert isinstance(await asyncio.wait_for(sending, 5), Retryable)


async def test_a_person_without_address_cannot_be_mailed(smtp: SmtpChannel) -> None:
    nobody = replace(ALERT, to=replace(ALERT.to, email=None))
    assert await send(smtp, nobody) == Rejected("li-qiang has no mail address")


@pytest.mark.parametrize("title", ["P1 " + "长" * 200, "P1 " + "long " * 40])
def test_a_long_title_is_cut_to_what_a_header_line_holds(title: str) -> None:
    mail = message_from_bytes(
        compose(replace(ALERT, title=title), "a@b.example").as_bytes(), policy=policy.default
    )
    assert len(mail["Subject"]) == SUBJECT_MAX_CHARS
    assert mail["Subject"].startswith(f"[P1] {title[3:8]}")


def test_the_priority_stands_in_plain_ascii_whatever_follows() -> None:
    assert b"Subject: [P1] =?utf-8?" in compose(ALERT, "a@b.example").as_bytes()


def test_keys_that_are_no_atoms_still_make_message_ids_and_keep_them_apart() -> None:
    ids = {
        str(compose(replace(ALERT, delivery=key), "a@b.example")["Message-ID"])
        for key in ("OCC 1/x", "OCC<1>/x", "..OCC/x", "OCC./x", "检修门/x", "OCC\r\nBcc: c/x")
    }
    assert len(ids) == 6
    for message_id in ids:
        assert message_id.isascii()
        assert message_id.isprintable()
        assert " " not in message_id
