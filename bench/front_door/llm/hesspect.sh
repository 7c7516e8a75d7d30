hesspect export hf FOLDER -o model.pt2 --task causal-lm --seq 64
hesspect data text FOLDER corpus.txt --split file --no-eos --seq 64 --rows 8 --first -o data.h5
hesspect density --model model.pt2 --weights FOLDER --data data.h5 --loss causal_lm --steps 20 --density-w1 0 --rtol-trace 0 --output result.h5
hesspect plot result.h5 -o figure.png
