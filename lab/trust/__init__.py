"""What of a folder's options may be followed: those that name code only if this user's lab wrote them.

A run folder holds the options it was started with, and ``ckpt_path=last`` takes them from there. Options
can name code to run: ``_target_`` above all, but also configurations and launchers that are not the project's
own. So the lab signs what it writes, with a secret that is kept outside of all run folders; in a folder
without that signature only plain values and the project's own choices count.
"""
