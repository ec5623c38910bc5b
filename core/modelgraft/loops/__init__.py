"""One generation loop for every decoder, whatever runs it.

    settings   what the user chose: lengths, sampling, penalties, beams, stops    (light)
    decoder    what a decoder must offer: prefill, step, reorder
    scoring    logits -> logits: penalties and forbidden tokens
    sequences  the rules among them that are about several tokens in a row
    sampling   logits -> tokens
    beams      beam search
    reading    tokens -> text, piece by piece
    loop       all of it together: `generate`

Only `settings` may be imported without torch.
"""
