"""A Flower app of the shape of xsite's, for tests of what launches it: no network, no images.

Its server writes the files that a launcher reads. What it does is chosen by the configuration's
``pretrained``, a text that nothing else reads here.
"""

from pathlib import Path

from simulations.bundle import write_app

CLIENTS = """
import json
import os
import time
from pathlib import Path

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from common.config import make_config

app = ClientApp()


@app.train()
def train(message, context):
    config = make_config(context.run_config)
    site = config.site_names[context.node_config["partition-id"]]
    folder = Path(config.runs_dir) / config.run_name / "sites" / site
    folder.mkdir(parents=True, exist_ok=True)
    step = message.content["order"]["round"]
    progress = {"round": step, "step": step, "total_steps": 3, "loss": 0.5,
                "images_per_second": 10.0}
    (folder / "progress.json").write_text(json.dumps(progress))
    if config.pretrained.endswith("sleep"):
        time.sleep(300)
    told = {"code": __file__, "cwd": os.getcwd(), "pid": os.getpid(), "site": site,
            "omp": os.environ["OMP_NUM_THREADS"], "threads": config.threads}
    return Message(RecordDict({"told": ConfigRecord(told)}), reply_to=message)
"""

SERVER = """
import json
import time
from pathlib import Path

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import ServerApp

from common.config import make_config

app = ServerApp()


@app.main()
def main(grid, context):
    config = make_config(context.run_config)
    behaviour = Path(config.pretrained).name
    run = Path(config.runs_dir) / config.run_name
    run.mkdir(parents=True, exist_ok=True)
    result = run / "result.json"
    result.write_text(json.dumps({"status": "running", "mode": "federated"}))
    (run / "config.toml").write_text(config.to_toml())
    if behaviour == "raise":
        raise RuntimeError("hospital-b sent nothing that could be used")
    if behaviour == "silent":
        return
    while len(ids := sorted(grid.get_node_ids())) < len(config.site_names):
        time.sleep(0.1)
    told = []
    for number in (1, 2, 3):
        record = RecordDict({"order": ConfigRecord({"round": number})})
        orders = [Message(record, dst_node_id=i, message_type=MessageType.TRAIN) for i in ids]
        told += [dict(reply.content["told"]) for reply in grid.send_and_receive(orders)]
    result.write_text(json.dumps({"status": "completed", "mode": "federated", "told": told}))
"""


def write_toy_app(folder: Path) -> Path:
    """Write the app into a new folder and return it."""
    write_app(folder)
    for package, source in (("clients", CLIENTS), ("server", SERVER)):
        for file in (folder / package).rglob("*.py"):
            file.unlink()
        (folder / package / "__init__.py").touch()
        (folder / package / "app.py").write_text(source)
    return folder
