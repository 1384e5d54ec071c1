"""What a configuration asks for by name: a task, methods and codecs."""

from common.config.schema import Config
from common.exchange.codecs.registry import find_codec
from common.methods.registry import methods_of
from common.tasks.task import task_of


def check_names(config: Config) -> None:
    """Check that all that a configuration names is there, and that its methods accept it.

    Raises
    ------
    ConfigError
        If there is nothing of a name, naming the nearest, or a method refuses the configuration.
    """
    task_of(config)
    methods_of(config)
    find_codec(config.codec)
    find_codec(config.codec_down)
