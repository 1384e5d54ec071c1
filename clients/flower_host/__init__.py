"""Where xsite reaches into Flower at a hospital: the installed code, a process that stands by."""
