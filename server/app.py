"""The ServerApp: let the sites join and Flower's loop run, ask for the last figures, write them."""

from collections.abc import Mapping
from dataclasses import replace
from logging import INFO
from pathlib import Path
from shutil import rmtree
from time import monotonic
from typing import cast

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.supercore import log

from common.config.load import make_config
from common.config.schema import Config
from common.data.open import home_folder
from common.errors import ConfigError
from common.exchange.fingerprint import code_fingerprint
from common.exchange.messages import Purpose, SiteInfo, SiteReply
from common.files import alone_in
from common.models.sharing import pack, parameter_mask, shared_layout
from common.runs.result import runs_base
from common.tasks.task import task_network
from server.checkpoints import load_checkpoint
from server.checks import check_names
from server.exchange import (
    Exchange,
    make_orders,
    require_enough,
    round_of,
    sort_replies,
)
from server.images import describe_images
from server.join import Joining
from server.journal import Ending, Journal, say_final
from server.participants import ExpectedSite, RunContext
from server.retry import RetryingGrid
from server.run_folder import RunFolder, record_end
from server.schedule import make_plan
from server.state import RunState, choose
from server.strategy import SiteAverage

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run a federation from the first join request to the result."""
    config = make_config(context.run_config, source="the run's configuration")
    if config.runs_dir and not Path(config.runs_dir).expanduser().is_absolute():
        raise ConfigError(
            f"runs-dir is '{config.runs_dir}', but Flower's processes work in folders of their "
            "own: write the whole path, from '/'."
        )
    folder = RunFolder.create(config, "federated", runs_base(config, home_folder() / "runs"))
    if folder.result.get("status") == "completed":
        log(INFO, "The run %s is complete already.", folder.path)
        return
    with alone_in(folder.path), record_end(folder, "the server was stopped"):
        coordinate(grid, config, folder)


def coordinate(grid: Grid, config: Config, folder: RunFolder) -> None:
    """Train, evaluate and write the result of a run whose folder is open.

    Raises
    ------
    RunError
        If the sites do not come, do not fit, or too few of them answer.
    CheckpointError
        If a resumed run's checkpoint cannot be used.
    """

    def say(text: str) -> None:
        log(INFO, text)
        folder.log(text)

    check_names(config)
    network = task_network(config, config.site_names)
    layout, fingerprint = shared_layout(network), code_fingerprint()
    expected = ExpectedSite(fingerprint, config.digest(), layout.digest())
    joining = Joining(grid, folder.path.name, config, expected, say)
    participants = joining.wait()
    for line in describe_images(participants.infos, config.class_names):
        say(line)
    images = {site: info.train_images for site, info in participants.infos.items()}
    state = load_checkpoint(folder.path / "checkpoint", images, config.digest())
    state = state or RunState(0, pack(network), images)
    plan = make_plan(config, state.began_with.values())
    mask = parameter_mask(network)
    context = RunContext(folder.path.name, config, participants, plan, layout, fingerprint, mask)
    say(_opening(context, state.round, network.description))
    grid = cast(Grid, RetryingGrid(grid, context, say))
    journal = Journal(folder, context, network, say)
    strategy = SiteAverage(journal, state, joining.take_late)
    # The weights are the strategy's own: nobody else shall hold on to those of the start.
    del state
    journal.finish(train(grid, strategy))
    rmtree(journal.checkpoints, ignore_errors=True)


def train(grid: Grid, strategy: SiteAverage) -> Ending:
    """Train to the last round, and evaluate the last weights and those that validation chose.

    Parameters
    ----------
    grid : Grid
        The connection to the participants.
    strategy : SiteAverage
        Of the run, at the state from which it goes on.
    """
    context = strategy.context
    if (rounds := context.plan.rounds - strategy.state.round) > 0:
        strategy.start(grid, ArrayRecord(), rounds, timeout=context.config.round_timeout)
    return _conclude(grid, strategy.journal, strategy.state)


def _opening(context: RunContext, after: int, network: str) -> str:
    sites = ", ".join(
        f"{site} ({info.train_images} training images{_without(info, context.config)})"
        for site, info in context.participants.infos.items()
    )
    begin = f"going on after round {after}" if after else "starting"
    plan = context.plan
    alone = f", the last of {plan.alone_steps} steps at each site alone" if plan.alone_steps else ""
    return f"{begin}: {network}; {sites}; {plan.total_steps} steps in {plan.rounds} rounds{alone}"


def _without(info: SiteInfo, config: Config) -> str:
    """Name the classes of which a site has no training image."""
    counts = zip(config.class_names, info.class_counts, strict=True)
    absent = [label for label, count in counts if not count]
    return f", none of {' and '.join(absent)}" if absent else ""


def _conclude(grid: Grid, journal: Journal, state: RunState) -> Ending:
    """Ask for the figures of the last weights, and of the chosen ones."""
    started = monotonic()
    final = _evaluate(grid, journal.context, state, "final")
    journal.note_figures(state, final.good)
    journal.say(say_final(final.good, "final weights"))
    chosen = choose(state, final.good)
    journal.note_best(state, chosen)
    state = _with_traffic(chosen, final)
    best: Mapping[str, SiteReply] = {}
    if state.best_round:
        asked = replace(state, shared=journal.chosen())
        exchange = _evaluate(grid, journal.context, asked, "best")
        best, state = exchange.good, _with_traffic(state, exchange)
        journal.say(say_final(best, f"weights of round {state.best_round}, chosen by validation"))
    state = replace(state, seconds=state.seconds + monotonic() - started)
    return Ending(state, final.good, best)


def _evaluate(
    grid: Grid, context: RunContext, state: RunState, purpose: Purpose
) -> Exchange[SiteReply]:
    sent = make_orders(context, state, purpose)
    replies = grid.send_and_receive(list(sent.values()), timeout=context.config.round_timeout)
    exchange = sort_replies(context, round_of(state, purpose), sent, replies, SiteReply)
    require_enough(context, f"Evaluation of the {purpose} weights", exchange)
    return exchange


def _with_traffic(state: RunState, exchange: Exchange[SiteReply]) -> RunState:
    down, up = exchange.size
    return replace(state, bytes_down=state.bytes_down + down, bytes_up=state.bytes_up + up)
