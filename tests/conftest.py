"""What all tests stand on."""

import signal

# A shell that starts the tests in the background has them ignore Ctrl-C, and what they start too;
# but how xsite takes it is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)
