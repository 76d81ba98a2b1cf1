"""Pictures of what was measured. Each file uses only those below it:

page      one self-contained page: pictures and tables, no script, nothing from elsewhere
drawing   draws a chart as PNG or SVG, with matplotlib
of_runs   which charts belong to runs: latency, throughput, speed, builds over time
chart     a chart as plain values
"""
