"""The ClientApp: decode what the server says, do it, encode the answer."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import flwr.app
import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.client_errors import refuse
from clients.egress.approval import require_approval
from clients.egress.gate import ExpectedMessage, enter_refusal, release
from clients.egress.noise import noised
from clients.egress.policy import Policy, kept_back, reduced
from clients.final import evaluate_last
from clients.identity import identify
from clients.round import train_round
from clients.site import OpenSite, make_site_info, note, open_identity
from common.device import limited_threads
from common.exchange.messages import JoinRequest, RoundOrder
from common.exchange.wire import decode_join, decode_order, encode_reply, encode_site_info
from common.files import locked
from common.tasks.task import task_layout

Request = TypeVar("Request", JoinRequest, RoundOrder)

app = ClientApp()


@app.query()
def join(message: Message, context: Context) -> Message:
    """Say who the site is and what it has."""
    return _answer(message, context, decode_join, _say_card)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Do a round of training."""
    return _answer(message, context, decode_order, _follow)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the final or the chosen weights."""
    return _answer(message, context, decode_order, _follow)


def _say_card(site: OpenSite, call: JoinRequest, _: Policy) -> RecordDict:
    if call.awaited:
        note(site.own, f"run {call.run}: the server waits for {call.awaited}")
    content: RecordDict = encode_site_info(make_site_info(site), flwr.app)
    return content


def _follow(site: OpenSite, order: RoundOrder, policy: Policy) -> RecordDict:
    act = train_round if order.purpose == "train" else evaluate_last
    reply = act(site, order)
    if kept := kept_back(reply, policy):
        note(site.own, kept)
    leaving = noised(reduced(reply, policy), order.shared, policy)
    content: RecordDict = encode_reply(leaving, flwr.app)
    return content


def _answer(
    message: Message,
    context: Context,
    decode: Callable[[Mapping[str, Any]], Request],
    act: Callable[[OpenSite, Request, Policy], RecordDict],
) -> Message:
    """Answer a message with what :mod:`clients.egress.gate` lets pass.

    Whatever goes wrong, only what :mod:`clients.client_errors` allows leaves.
    """
    site, own, ledger = "", None, None
    try:
        identity = identify(context.node_config, context.run_config)
        site = identity.site
        asked = decode(message.content)
        # Its bytes are as large as the weights that were just read from them.
        message.content.clear()
        own, ledger = identity.own(asked.run), identity.ledger(asked.run)
        if identity.policy.approve_runs:
            require_approval(identity, asked.run)
        # A round that the server gave up on may still be running here.
        with locked(own / ".lock"), limited_threads(identity.config):
            opened = open_identity(identity, asked.run)
            content = act(opened, asked, identity.policy)
            release(content, _expected(opened, asked), identity.policy, ledger)
        return Message(content, reply_to=message)
    except Exception as error:
        refusal = refuse(error, site, own)
        if own is not None and ledger is not None:
            enter_refusal(refusal.reason, own, ledger)
        return Message(Error(refusal.code, refusal.reason), reply_to=message)
    finally:
        # Simulated sites share a GPU, one process each: what this one holds, others lack.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _expected(site: OpenSite, asked: JoinRequest | RoundOrder) -> ExpectedMessage:
    order = asked if isinstance(asked, RoundOrder) else None
    return ExpectedMessage(
        site=site.name,
        run=site.run,
        round=order.round if order else 0,
        layout=task_layout(site.config, site.name),
        classes=len(site.config.class_names),
        projection_size=site.config.projection_size,
        received=order.shared if order and order.purpose == "train" else None,
        halved=site.config.exchange == "half-deltas",
    )
