"""The page of a report."""

from __future__ import annotations

from string import Template

PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 92rem; margin: 0 auto;
  padding: 1.5rem; }
h1 { font-size: 1.7rem; margin: 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; border-top: 1px solid #ccc; padding-top: 1rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .4rem; }
p { max-width: 66rem; margin: .5rem 0; }
.lead { font-size: 1.15rem; white-space: pre-line; }
.note { color: #555; font-size: .9rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; font-weight: normal; }
thead th { border-bottom: 2px solid #1a1a1a; font-weight: 600; }
tbody tr { border-bottom: 1px solid #e5e5e5; }
.tables, .charts { display: flex; flex-wrap: wrap; gap: 1rem 3rem; align-items: flex-start; }
.charts figure { flex: 1 1 30rem; max-width: 48rem; }
.pictures { display: grid; gap: .6rem; align-items: end; }
figure { margin: 0; }
figcaption { font-size: .9rem; font-weight: 600; }
img { display: block; width: 100%; height: auto; border: 1px solid #ccc; }
.charts img { border: 0; }
.legend { position: sticky; top: 0; background: #fff; padding: .4rem 0; display: flex; flex-wrap: wrap;
  gap: .2rem 1.4rem; border-bottom: 1px solid #ccc; }
.swatch { display: inline-block; width: .9em; height: .9em; margin-right: .4em; vertical-align: -.1em;
  border: 1px solid #777; }
details { margin: .6rem 0; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: .85rem; }
</style>
</head>
<body>
<h1>$title</h1>
<p class="lead">$lead</p>
<h2>In numbers</h2>
<div class="tables">
$numbers
$classes
</div>
<p class="note">$notes</p>
<h2>The same scans, before and after</h2>
<p class="note">From above: 60 m x 60 m around the vehicle (black arrow, driving up). Below: the points that the camera
sees.</p>
<div class="legend">$legend</div>
$scenes
<h2>Over the drive</h2>
<div class="charts">
$charts
</div>
<h2>Settings and hashes</h2>
$settings
</body>
</html>
""")
