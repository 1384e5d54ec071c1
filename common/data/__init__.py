"""A site folder becomes images in memory: reading, decoding, folds, sampling, augmentation."""
