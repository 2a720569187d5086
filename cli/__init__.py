"""The command line, one file per command.

A command reads its options, calls one function of the library, and prints the result:

- edit: `edit_data` in `scoresde.tasks.editing`
- sample, latent, likelihood: `draw_samples`, `explore_latents`, `score_data` in `scoresde.tasks`
- train: `prepare_run` in `scoresde.tasks.train.prepare`, then the steps of the run
- bench: `prepare_bench` in `scoresde.comparison.prepare`, then `Bench.run`; demo: `prepare_demo`
- check: `check` in `scoresde.verification.contract`
- verify: `prepare_verification` in `scoresde.verification.prepare`, then `Verification.run`

The first steps of these functions are in `scoresde/tasks/request.py`, folders of results are opened
in `scoresde/output/result_folder.py`, and samplers are named in `scoresde/names/samplers.py`.
`options.py` has the options that several commands share, `types.py` the values that options take,
and `names.py` the names for help and early errors.
"""

__all__: list[str] = []
