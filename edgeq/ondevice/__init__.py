"""An artifact on a device: what deploy and profile share, from model files to jobs and back to figures."""
