# Each target is a line or two that calls a named program.
PYTHON ?= python3
BIN := .venv/bin
export NO_MKDOCS_2_WARNING := 1

.PHONY: help serve build offline pdf publish test lint labs labs-setup bench permalinks setup browser lock

help: ## この一覧
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

serve: ## 下書きを http://127.0.0.1:8000 で見る
	@$(PYTHON) scripts/setup.py serve
	@$(BIN)/mkdocs serve --dev-addr 127.0.0.1:8000

build: setup ## 公開するサイトを site/ に作る
	@$(BIN)/python -m scripts.build

offline: setup ## ネットワークなしで読める一式を dist/ に作る
	@$(BIN)/python -m scripts.offline

pdf: build ## サイト全体を1つのPDFにする
	@$(BIN)/python -m scripts.pdf

publish: offline pdf ## 公開するサイトに、PDFとオフライン版を添える
	@$(BIN)/python -m scripts.build

labs: ## 実験をすべて動かし、記録と比べる
	@$(PYTHON) -m labs check --all --jobs 2

labs-setup: ## 実験に要るDebianのパッケージを入れる(デーモンは動かさない)
	@$(PYTHON) scripts/setup.py labs

test: build offline lint ## すべての約束を確かめる
	@$(PYTHON) scripts/setup.py exit-door labs
	@$(BIN)/python -m pytest

lint: setup ## コードと日本語の書き方を確かめる
	@$(BIN)/python -m scripts.lint

bench: build ## 素のMaterialと速さを比べる
	@$(BIN)/python -m scripts.bench

permalinks: setup ## 新しいページと見出しを permalinks.txt に加える
	@INFRA_NOTES_PERMALINKS=record $(BIN)/mkdocs build --quiet --site-dir .cache/permalinks

setup: ## テストと公開に要るものを入れる
	@$(PYTHON) scripts/setup.py test

browser: setup ## Chromiumと日本語フォントを用意する

lock: setup ## requirements*.txt を作り直す
	@$(BIN)/python -m scripts.lock
