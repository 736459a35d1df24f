"""rq-dashboard at `/rq`: its pages, with values and acts of ours behind them."""
