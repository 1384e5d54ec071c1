"""The ClientApp: decode what the server says, do it, encode the answer."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import flwr.app
import torch
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from clients.final import evaluate_last
from clients.guard import refuse
from clients.identity import identify
from clients.round import train_round
from clients.site import OpenSite, make_card, open_identity
from common.device import limited_threads
from common.files import locked
from common.messages import RollCall, RoundOrder
from common.wire import decode_order, decode_roll_call, encode_card, encode_reply

Asked = TypeVar("Asked", RollCall, RoundOrder)

app = ClientApp()


@app.query()
def roll_call(message: Message, context: Context) -> Message:
    """Say who the site is and what it has."""
    return _answer(message, context, decode_roll_call, _say_card)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Do a round of training."""
    return _answer(message, context, decode_order, _follow)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the final or the chosen weights."""
    return _answer(message, context, decode_order, _follow)


def _say_card(site: OpenSite, _: RollCall) -> Any:
    return encode_card(make_card(site), flwr.app)


def _follow(site: OpenSite, order: RoundOrder) -> Any:
    act = train_round if order.purpose == "train" else evaluate_last
    return encode_reply(act(site, order), flwr.app)


def _answer(
    message: Message,
    context: Context,
    decode: Callable[[Mapping[str, Any]], Asked],
    act: Callable[[OpenSite, Asked], Any],
) -> Message:
    """Answer a message; whatever goes wrong, only what :mod:`clients.guard` allows leaves."""
    site, own = "", None
    try:
        identity = identify(context.node_config, context.run_config)
        site = identity.site
        asked = decode(message.content)
        # Its bytes are as large as the weights that were just read from them.
        message.content.clear()
        own = identity.own(asked.run)
        # A round that the server gave up on may still be running here.
        with locked(own / ".lock"), limited_threads(identity.config):
            content = act(open_identity(identity, asked.run), asked)
        return Message(content, reply_to=message)
    except Exception as error:
        refusal = refuse(error, site, own)
        return Message(Error(refusal.code, refusal.reason), reply_to=message)
    finally:
        # Simulated sites share a GPU, one process each: what this one holds, others lack.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
