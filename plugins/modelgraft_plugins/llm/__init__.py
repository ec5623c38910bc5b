"""Language models: one generation loop over decoders and encoder-decoders."""
