"""One generation loop for every decoder, whatever runs it.

    settings   what the user chose: lengths, sampling, penalties, beams, stops    (light)
    decoder    what a decoder must offer: prefill, step, reorder
    scoring    logits -> logits: penalties and forbidden tokens
    sampling   logits -> tokens
    beams      beam search
    reading    tokens -> text, piece by piece
    loop       all of it together: `generate`

Only `settings` may be imported without torch.
"""
