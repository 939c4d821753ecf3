from unet_pipeline.training.history import Row, write_history


def test_history_is_a_table_with_empty_cells_where_nothing_is_known(tmp_path):
    rows = [Row(2, 0.005, 1 / 3), Row(4, 0.0025, 0.25, 0.5, (0.9, None))]
    write_history(tmp_path, rows, ["background", "cell"])
    assert (tmp_path / "history.tsv").read_text() == (
        "step\tlearning_rate\ttrain_loss\tvalidation_loss\tdice_background\tdice_cell\n"
        "2\t0.005\t0.33333333\t\t\t\n"
        "4\t0.0025\t0.25\t0.5\t0.9\t\n"
    )
