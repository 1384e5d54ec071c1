"""What xsite is compared with: other methods for several sites, one room each."""
