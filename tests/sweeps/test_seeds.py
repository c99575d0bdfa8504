"""Seeds side by side, from Python as from the command line."""

from pyg_lth import find_tickets


def test_seeds_side_by_side_come_to_what_they_do_in_turn(small_graph, quick_config, tmp_path):
    config = quick_config(model="mf", rounds=1, seeds=2)
    in_turn = find_tickets(small_graph, config)
    together = find_tickets(small_graph, config, run_dir=tmp_path / "run", jobs=2)
    assert [r.test for r in together.rounds] == [r.test for r in in_turn.rounds]
    assert together.seeds == [0, 1]
