"""Search an architecture: `accelerate launch recipes/search.py [--config NAME|FILE] [--set KEY=VALUE ...] [--resume]`.

Without arguments it runs the search of the demo. Everything goes to the run folder: the whole configuration, the found
architecture, its weights as the supernet had them, how it scores beside the supernet, the history, plots and
TensorBoard logs.
"""

from __future__ import annotations

import argparse
from contextlib import closing

from quantnas_ext.runs import command_line
from quantnas_ext.runs.config import Config, add_config_arguments, load_config
from quantnas_ext.runs.run_folder import RunFolder
from quantnas_ext.runs.run_identity import begun_search


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with these arguments (the command line's, if None)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser, default="demo")
    parser.add_argument("--resume", action="store_true", help="go on with the interrupted search in the run folder")
    arguments = parser.parse_args(argv)
    config = load_config(arguments.config, arguments.overrides)
    if command_line.is_main_process():
        RunFolder(config.run).check(resume=arguments.resume)
    search(config, resume=arguments.resume)


def search(config: Config, *, resume: bool = False) -> None:
    """Search as a configuration says, and fill its run folder."""
    import torch  # with all that loads torch, after what can be refused without it
    from accelerate.utils import set_seed
    from torch.nn.functional import l1_loss

    from quantnas_ext.distribution.choices import ChoiceTree
    from quantnas_ext.runs.history import SearchRecorder
    from quantnas_ext.runs.search_goals import goals_of
    from quantnas_ext.search.discretization_gap import Metric
    from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
    from quantnas_ext.search.loop.processes import process_state
    from quantnas_ext.search.loop.trial_step import trial_step
    from quantnas_ext.search.options import EvaluatorOptions, gathered
    from quantnas_ext.search.result import run_search
    from quantnas_ext.search.strategy import QuantNAS
    from quantnas_ext.spaces import build_space
    from quantnas_ext.spaces.contract import diagram_of
    from quantnas_ext.sr.data.decoding import finish_decoding
    from quantnas_ext.sr.data.search_data import search_datasets
    from quantnas_ext.sr.evaluation.metrics import psnr_rgb
    from quantnas_ext.sr.search_files import keep_operations, save_search, search_summary
    from quantnas_ext.threads import choose_threads, set_threads

    # Everything that can be wrong with the input shows before the run folder is made.
    set_seed(config.seed)
    torch.set_flush_denormal(True)
    set_threads(config.search.threads)
    space = build_space(config.space.name, config.space.arguments)
    diagram, tree = diagram_of(space), ChoiceTree.of(space)
    for_weights, for_logits = search_datasets(config, space)
    kept = keep_operations(space, config.search.operations)
    strategy = QuantNAS(config.search, costs=goals_of(config.search))
    strategy.check(space)
    finish_decoding()

    left = ChoiceTree.of(space)  # without the operations that are kept
    with begun_search(config, resume=resume) as run, closing(SearchRecorder(run, left)) as recorder:
        # A table of latencies holds for the threads it was measured with; several processes share the cores evenly.
        if config.search.threads is None and config.search.latency_table is None and process_state().num_processes == 1:
            batch = (config.data.batch_size, 3, config.data.patch, config.data.patch)
            choose_threads(run.path, trial_step(space, strategy, batch))
        process_state().wait_for_everyone()
        options = gathered(EvaluatorOptions, config, config.data, config.search, channels_last=True)
        evaluator = AccelerateEvaluator(for_weights, for_logits, options, checkpoint=run.checkpoint, on_epoch=recorder)
        metrics: dict[str, Metric] = {"loss": l1_loss, "psnr": psnr_rgb}
        result = run_search(space, evaluator, strategy, run.nni, metrics=metrics, kept=kept, top_k=config.search.top_k)
        if result is not None:
            architecture = save_search(result, config, run, diagram, tree, recorder.history)
            print(search_summary(result, architecture, run))


if __name__ == "__main__":
    command_line.run(main)
