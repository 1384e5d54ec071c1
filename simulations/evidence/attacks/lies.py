"""How one of five hospitals lies: about its weights, or by its labels."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import flwr.app
import numpy as np
from flwr.app import Message

from common.config.schema import Config
from common.exchange.wire import decode_order, decode_reply, encode_reply
from simulations.runtime.in_process import FIRST_NODE, Tamper
from simulations.synth import hospital_names

SITES = hospital_names("5")
LIAR = SITES[-1]
HONEST = SITES[:-1]


def reverse(factor: float) -> Tamper:
    """Let the liar send so many times its step, in every round."""
    liar = FIRST_NODE + SITES.index(LIAR)

    def tamper(question: Message, reply: Message) -> list[Message]:
        asked = question.metadata
        if asked.message_type == "train" and asked.dst_node_id == liar and not reply.has_error():
            sent, answer = decode_order(question.content).shared, decode_reply(reply.content)
            step = answer.shared - sent
            lie = replace(answer, shared=(sent + np.float32(factor) * step).astype(sent.dtype))
            reply.content = encode_reply(lie, flwr.app)
        return [reply]

    return tamper


def swap_labels(site: Path, target: Path) -> Path:
    """Copy a site's folder with the two classes swapped, its metadata too."""
    negative, positive = Config().class_names
    other = {negative: positive, positive: negative}
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(site, target)
    for name, swapped in ((negative, ".swapped"), (positive, negative), (".swapped", positive)):
        (target / name).rename(target / swapped)
    with (target / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        folder, _, rest = row["file_name"].partition("/")
        row["file_name"] = f"{other[folder]}/{rest}"
        if "label" in row:
            row["label"] = other[row["label"]]
    with (target / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return target
