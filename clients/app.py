"""The ClientApp: decode what the server says, do it, encode the answer."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import flwr.app
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.client_errors import refuse
from clients.egress.approval import require_approval
from clients.egress.gate import ExpectedMessage
from clients.egress.pipeline import enter_refusal, let_leave, release
from clients.egress.policy import Policy, reduced_info
from clients.final import evaluate_last
from clients.identity import identify
from clients.round import keep, train_round
from clients.site import OpenSite, make_site_info, note, open_identity
from common.device import limited_threads
from common.exchange.messages import JoinRequest, RoundOrder
from common.exchange.wire import decode, encode
from common.files import locked

Way = tuple[Policy, Path, Path]
"""A site's policy, the folder of its files in the run, and its ledger's."""
Request = TypeVar("Request", JoinRequest, RoundOrder)

app = ClientApp()


@app.query()
def join(message: Message, context: Context) -> Message:
    """Say who the site is and what it has."""
    return _answer(message, context, JoinRequest, _say_card)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Do a round of training."""
    return _answer(message, context, RoundOrder, _follow)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the final or the chosen weights."""
    return _answer(message, context, RoundOrder, _follow)


def _say_card(site: OpenSite, call: JoinRequest, way: Way) -> RecordDict:
    if call.awaited:
        note(site.own, f"run {call.run}: the server waits for {call.awaited}")
    policy, _, ledger = way
    info, kept = reduced_info(make_site_info(site), policy)
    if call.awaited:
        # Nobody waits for this answer, and what has left need not leave again.
        info = replace(info, statistics=None)
    elif kept:
        note(site.own, kept)
    content: RecordDict = encode(info, flwr.app)
    release(content, ExpectedMessage(site.config, site.name, site.run), policy, ledger)
    return content


def _follow(site: OpenSite, order: RoundOrder, way: Way) -> RecordDict:
    expected = ExpectedMessage(site.config, site.name, site.run, order.round)
    if order.purpose != "train":
        return let_leave(evaluate_last(site, order), expected, {}, *way).content
    trained = train_round(site, order)
    expected = replace(
        expected, received=trained.received, moments=trained.moments, steps=len(order.steps)
    )
    leaving = let_leave(trained.reply, expected, trained.memory, *way, trained.after)
    keep(site, order, trained, leaving)
    return leaving.content


def _answer(
    message: Message,
    context: Context,
    kind: type[Request],
    act: Callable[[OpenSite, Request, Way], RecordDict],
) -> Message:
    """Answer a message with what :mod:`clients.egress.pipeline` lets leave.

    Whatever goes wrong, only what :mod:`clients.client_errors` allows leaves.
    """
    site, own, ledger = "", None, None
    try:
        identity = identify(context.node_config, context.run_config)
        site = identity.site
        asked = decode(kind, message.content)
        # Its bytes are as large as the weights that were just read from them.
        message.content.clear()
        own, ledger = identity.own(asked.run), identity.ledger(asked.run)
        if identity.policy.approve_runs:
            require_approval(identity, asked.run)
        # A round that the server gave up on may still be running here.
        with locked(own / ".lock"), limited_threads(identity.config):
            opened = open_identity(identity, asked.run)
            content = act(opened, asked, (identity.policy, own, ledger))
        return Message(content, reply_to=message)
    except Exception as error:
        refusal = refuse(error, site, own)
        if own is not None and ledger is not None:
            enter_refusal(refusal.reason or "", own, ledger)
        return Message(refusal, reply_to=message)
    finally:
        # Simulated sites share a GPU, one process each: what this one holds, others lack.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
