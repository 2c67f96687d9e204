"""What the machine and Python give, made safe: clocks that stand while we do, locks that a signal
handler may meet, logs, text that can be printed, the limits of cgroups.

Knows nothing of chunkdl and imports only libraries; everything may import it.
"""
