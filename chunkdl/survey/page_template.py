"""The HTML of the page of a survey; what is put in was escaped before."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Survey of $title</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; color: #222; max-width: 1240px; margin: 24px auto;
  padding: 0 16px; }
h1 { font-size: 24px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin-top: 32px; border-bottom: 1px solid #ccc; }
h3 { font-size: 14px; margin: 0 0 4px; }
table { border-collapse: collapse; }
td, th { padding: 1px 8px 1px 0; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.tiles, .histograms { display: flex; flex-wrap: wrap; gap: 12px 24px; margin: 12px 0; }
.tile { border: 1px solid #ccc; border-radius: 6px; padding: 8px 12px; }
.tile b { display: block; font-size: 20px; }
.histogram { min-width: 260px; }
.bar { width: 110px; }
.bar i { display: block; height: 12px; margin-top: 4px; background: #3b6ea5; }
.fine { color: #00693e; }
.problems td, .problems th { padding-right: 16px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(370px, 1fr)); gap: 10px; }
.card { display: grid; grid-template-columns: ${longest}px 1fr; gap: 10px; border: 1px solid #ddd;
  border-radius: 6px; padding: 8px; content-visibility: auto; contain-intrinsic-size: auto 180px; }
.card img { max-width: ${longest}px; max-height: ${longest}px; }
.card .none { width: ${longest}px; height: 100px; background: #eee; color: #777;
  display: grid; place-items: center; }
.card div { min-width: 0; overflow-wrap: anywhere; }
.card h3 { font-weight: 600; }
.card p { margin: 2px 0; }
.path, .facts, details { color: #555; font-size: 12px; }
.problem { color: #a40000; font-size: 12px; }
ul { margin: 4px 0; padding-left: 16px; }
</style>
</head>
<body>
<h1>Survey of $title</h1>
<div class="tiles">$tiles</div>
$problems
<div class="histograms">$tables</div>
<p class="facts">Green lines are the borders of tissue. What the numbers mean, and which regions
were read: the page &quot;A survey of the dataset&quot; of chunkdl.</p>
$bad
$good
</body>
</html>
"""

CARD = """
<div class="card"><div>$picture</div><div>
<h3>$name</h3>
<p class="facts">patient $patient</p>
$problems<p class="facts">$facts</p>
<p class="path">$path</p>
$notes</div></div>"""

PICTURE = '<img loading="lazy" decoding="async" alt="the slide" src="data:image/jpeg;base64,$data">'
