from unet_pipeline.train.history import Row, history_text


def test_history_is_a_table_with_empty_cells_where_nothing_is_known():
    rows = [Row(2, 0.005, 1 / 3), Row(4, 0.0025, 0.25, 0.5, (0.9, None), 0.75)]
    assert history_text(rows, ["background", "cell"]) == (
        "step\tlearning_rate\ttrain_loss\tvalidation_loss\tvalidation_score\tdice_background\tdice_cell\n"
        "2\t0.005\t0.33333333\t\t\t\t\n"
        "4\t0.0025\t0.25\t0.5\t0.75\t0.9\t\n"
    )
