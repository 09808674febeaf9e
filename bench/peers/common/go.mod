module barge/bench/peers/common

go 1.26
