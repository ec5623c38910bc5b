"""What repeats inside a component: driven components, and the one token loop of every decoder. A tour: README.md beside this.

    driven     what a driven component is: a loop around tensor parts            (light)
    module     the module that holds the parts
    settings   what the user chose: lengths, sampling, penalties, beams, stops    (light)
    decoder    what a decoder must offer: prefill, step, reorder
    scoring    logits -> logits: penalties and forbidden tokens
    sequences  the rules among them that are about several tokens in a row
    sampling   logits -> tokens
    beams      beam search
    reading    tokens -> text, piece by piece
    loop       all of it together: `generate`

Only `settings` and `driven` may be imported without torch.
"""
