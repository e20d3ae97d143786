from vidkd.cli import main

main()
